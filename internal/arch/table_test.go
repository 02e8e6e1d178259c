package arch

import "slices"

// A row says what one package may import, its test files aside.
type row struct {
	// folder of the package, from the root of the repository: "." is the root
	// package, and "examples/..." every folder below examples.
	folder string

	// uses names the folders it may import. Each stands further down the
	// table, so that there is no way back up and no cycle.
	uses []string

	// standalone packages import nothing but the standard library and other
	// standalone packages: they can be taken into any program for free. The
	// others may import other modules too.
	standalone bool
}

// What uses may hold instead of a list of folders.
var (
	everything       = []string{"everything"}        // all that stands further down
	everythingPublic = []string{"everything public"} // the same, without internal and cmd
	nothing          []string
)

// table is the architecture: an arrow only ever points down it. A new package
// gets a row here, a new arrow a name in its row, and ARCHITECTURE.md the reason.
var table = []row{
	{folder: "examples/...", uses: everythingPublic},
	{folder: "cmd/millrace", uses: everything},
	{folder: "internal/arch", uses: nothing, standalone: true},

	{folder: "gather", uses: []string{".", "internal/control"}},
	{folder: "fleet", uses: []string{".", "internal/control"}},
	{folder: "task", uses: []string{".", "worker"}},
	{folder: "worker", uses: []string{".", "mpmc", "replica", "supervise", "fanin", "internal/control"}},
	{folder: "internal/control", uses: []string{"."}},

	{folder: "internal/dashboard", uses: []string{"."}},
	{folder: "internal/door", uses: []string{".", "broker", "internal/nsqwire"}},

	{folder: "driver/embedded", uses: []string{".", "broker"}},
	{folder: "driver/nsq", uses: []string{".", "internal/nsqwire"}},
	{folder: "driver/rabbitmq", uses: []string{"."}},
	{folder: "driver/nats", uses: []string{"."}},
	{folder: "driver/drivertest", uses: []string{"."}},

	{folder: "broker", uses: []string{".", "internal/seglog", "internal/ledger", "internal/vfs"}},
	{folder: "internal/seglog", uses: []string{"internal/vfs"}},
	{folder: "internal/ledger", uses: nothing, standalone: true},
	{folder: "internal/nsqwire", uses: []string{"."}, standalone: true},
	{folder: "internal/vfs", uses: nothing},

	{folder: "replica", uses: []string{"mpmc", "supervise"}, standalone: true},
	{folder: "mpmc", uses: nothing, standalone: true},
	{folder: "supervise", uses: nothing, standalone: true},
	{folder: "fanin", uses: nothing, standalone: true},

	{folder: ".", uses: nothing, standalone: true},
}

// mayUse lists the folders that row i may import.
func mayUse(table []row, i int) []string {
	r := table[i]
	if !slices.Equal(r.uses, everything) && !slices.Equal(r.uses, everythingPublic) {
		return r.uses
	}
	var folders []string
	for _, below := range table[i+1:] {
		if slices.Equal(r.uses, everything) || isPublic(below.folder) {
			folders = append(folders, below.folder)
		}
	}
	return folders
}
