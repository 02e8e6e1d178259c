package arch

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestEveryImportPointsDownTheTable(t *testing.T) {
	for _, complaint := range checkArrows(theTree(t), table) {
		t.Error(complaint)
	}
}

func TestTheTableItselfHasNoWayUp(t *testing.T) {
	for _, complaint := range checkTable(table) {
		t.Error(complaint)
	}
}

// checkArrows returns a sentence for every package that has no row and every
// import, outside of tests, that its row does not allow.
func checkArrows(files []sourceFile, table []row) []string {
	var complaints []string
	homeless := map[string]bool{}
	for _, file := range files {
		if file.beside {
			continue
		}
		i := slices.IndexFunc(table, func(r row) bool { return r.covers(file.folder()) })
		if i < 0 {
			homeless[file.folder()] = true
			continue
		}
		if file.isTest() {
			continue
		}
		for _, spec := range file.imports {
			if mayImport(table, i, spec.path) {
				continue
			}
			complaints = append(complaints, fmt.Sprintf(
				"%s:%d imports %s, but %s may use %s. If the design has changed, say so in internal/arch/table_test.go and in ARCHITECTURE.md.",
				file.path, spec.line, spec.path, called(file.folder()), inWords(table, i)))
		}
	}
	for folder := range homeless {
		complaints = append(complaints, fmt.Sprintf(
			"The package in %s has no row in internal/arch/table_test.go: give it one, above all that it uses and below all that may use it.", folder))
	}
	slices.Sort(complaints)
	return complaints
}

// checkTable returns a sentence for every row that would make checkArrows
// allow what it must not: an arrow up, or a standalone package on one that is not.
func checkTable(table []row) []string {
	var complaints []string
	for i, r := range table {
		for _, used := range mayUse(table, i) {
			j := slices.IndexFunc(table, func(r row) bool { return r.folder == used })
			switch {
			case j < 0:
				complaints = append(complaints, fmt.Sprintf("%s uses %q, which has no row in the table.", called(r.folder), used))
			case j <= i:
				complaints = append(complaints, fmt.Sprintf("%s uses %s, which is not further down the table: that arrow points up.", called(r.folder), called(used)))
			case r.standalone && !table[j].standalone:
				complaints = append(complaints, fmt.Sprintf("%s is standalone but uses %s, which is not.", called(r.folder), called(used)))
			}
		}
		if slices.ContainsFunc(table[:i], func(above row) bool { return above.covers(r.folder) }) {
			complaints = append(complaints, fmt.Sprintf("%s has two rows in the table.", called(r.folder)))
		}
	}
	return complaints
}

func (r row) covers(folder string) bool {
	if parent, ok := strings.CutSuffix(r.folder, "/..."); ok {
		return strings.HasPrefix(folder, parent+"/")
	}
	return folder == r.folder
}

func mayImport(table []row, i int, imported string) bool {
	if imported == modulePath {
		return slices.Contains(mayUse(table, i), ".")
	}
	if folder, ours := strings.CutPrefix(imported, modulePath+"/"); ours {
		return slices.Contains(mayUse(table, i), folder)
	}
	return isStandardLibrary(imported) || !table[i].standalone
}

// isStandardLibrary goes by the rule that only the standard library's paths
// start with an element that has no dot. "C" is cgo, which takes a C compiler.
func isStandardLibrary(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".") && imported != "C"
}

func isPublic(folder string) bool {
	elements := strings.Split(folder, "/")
	return elements[0] != "cmd" && !slices.Contains(elements, "internal")
}

func called(folder string) string {
	if folder == "." {
		return "the root package"
	}
	return folder
}

// inWords says what row i may use, to end the sentence "x may use …".
func inWords(table []row, i int) string {
	var uses []string
	for _, folder := range mayUse(table, i) {
		uses = append(uses, called(folder))
	}
	switch {
	case !table[i].standalone && len(uses) == 0:
		return "no package of this module"
	case !table[i].standalone:
		return "no package of this module but " + strings.Join(uses, ", ")
	default:
		return "nothing but " + strings.Join(append(uses, "the standard library"), ", ")
	}
}

// The guard is guarded: each case is a small tree with one mistake in it, and a
// part of the one sentence it must earn, or "" if it is no mistake.
func TestTheGuardSeesEveryKindOfWrongArrow(t *testing.T) {
	small := []row{
		{folder: "examples/...", uses: everythingPublic},
		{folder: "cmd/millrace", uses: everything},
		{folder: "worker", uses: []string{".", "mpmc"}},
		{folder: "internal/ledger", standalone: true},
		{folder: "mpmc", standalone: true},
		{folder: ".", standalone: true},
	}
	cases := []struct {
		name, file, imports, complaint string
	}{
		{"an arrow down", "worker/a.go", modulePath + "/mpmc", ""},
		{"an arrow to the root package", "worker/a.go", modulePath, ""},
		{"an arrow up", "mpmc/a.go", modulePath + "/worker", "mpmc/a.go:3 imports " + modulePath + "/worker, but mpmc may use nothing but the standard library."},
		{"an arrow up from the root package", "a.go", modulePath + "/mpmc", "the root package may use nothing but"},
		{"an arrow down that the row does not name", "worker/a.go", modulePath + "/internal/ledger", "worker may use no package of this module but the root package, mpmc."},
		{"an arrow only another system sees", "mpmc/a_windows.go", modulePath, "mpmc/a_windows.go:3"},
		{"an arrow of a test", "mpmc/a_test.go", modulePath + "/worker", ""},
		{"another module, where it is allowed", "worker/a.go", "example.org/x", ""},
		{"another module in a standalone package", "mpmc/a.go", "example.org/x", "mpmc/a.go:3 imports example.org/x"},
		{"cgo in a standalone package", "mpmc/a.go", "C", "mpmc/a.go:3 imports C"},
		{"the standard library's own internals", "mpmc/a.go", "testing/synctest", ""},
		{"a package without a row", "newcomer/a.go", "fmt", "The package in newcomer has no row"},
		{"a package without a row that is all tests", "newcomer/a_test.go", "fmt", "The package in newcomer has no row"},
		{"an import of a package without a row", "worker/a.go", modulePath + "/newcomer", "worker/a.go:3"},
		{"the command line on what is internal", "cmd/millrace/a.go", modulePath + "/internal/ledger", ""},
		{"an example on what is public", "examples/rpc/a.go", modulePath + "/worker", ""},
		{"an example on what is internal", "examples/rpc/a.go", modulePath + "/internal/ledger", "examples/rpc/a.go:3"},
		{"an example on another example", "examples/rpc/a.go", modulePath + "/examples/replicas", "examples/rpc/a.go:3"},
		{"a name that starts like ours", "mpmc/a.go", modulePath + "x/worker", "mpmc/a.go:3"},
		{"another module in this repository", "peers/a.go", modulePath + "/internal/ledger", ""},
		{"a file the go command does not see", "mpmc/testdata/a.go", modulePath + "/worker", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			source := fmt.Sprintf("package %s\n\nimport _ %q\n", path.Base(path.Dir(c.file)), c.imports)
			if path.Dir(c.file) == "." {
				source = fmt.Sprintf("package millrace\n\nimport _ %q\n", c.imports)
			}
			files, err := readTree(fstest.MapFS{
				"go.mod":       {Data: []byte("module " + modulePath)},
				"peers/go.mod": {Data: []byte("module " + modulePath + "/peers")},
				c.file:         {Data: []byte(source)},
			})
			if err != nil {
				t.Fatal(err)
			}
			expectComplaint(t, checkArrows(files, small), c.complaint)
		})
	}
}

func TestTheGuardSeesEveryKindOfWrongTable(t *testing.T) {
	cases := []struct {
		name      string
		table     []row
		complaint string
	}{
		{"arrows down", []row{{folder: "a", uses: []string{"b"}}, {folder: "b"}}, ""},
		{"an arrow up", []row{{folder: "b"}, {folder: "a", uses: []string{"b"}}}, "a uses b, which is not further down"},
		{"an arrow to itself", []row{{folder: "a", uses: []string{"a"}}}, "a uses a, which is not further down"},
		{"an arrow to nowhere", []row{{folder: "a", uses: []string{"b"}}}, `a uses "b", which has no row`},
		{"a package on two rows", []row{{folder: "a"}, {folder: "a"}}, "a has two rows"},
		{"standalone on one that is not", []row{{folder: "a", uses: []string{"b"}, standalone: true}, {folder: "b"}}, "a is standalone but uses b"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			expectComplaint(t, checkTable(c.table), c.complaint)
		})
	}
}

// expectComplaint wants exactly one complaint that contains part, or none when
// part is empty.
func expectComplaint(t *testing.T, complaints []string, part string) {
	t.Helper()
	if part == "" && len(complaints) == 0 {
		return
	}
	if part == "" || len(complaints) != 1 || !strings.Contains(complaints[0], part) {
		t.Errorf("got the complaints %q, want one with %q", complaints, part)
	}
}
