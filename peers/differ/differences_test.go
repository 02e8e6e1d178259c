package differ

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// tableFile has the table of what Millrace does otherwise on purpose. A line of it is
//
//   - NAME: WHAT HAPPENS HERE, WHAT NSQD DOES, AND WHY.
//
// and a script that proves it has the name in its field because.
const (
	tableFile  = "../../internal/door/doc.go"
	tableTitle = "// # Where it is not like nsqd, on purpose"
)

// differences are the lines of the table by their names, and which of them a script has
// proved.
type differences struct {
	lines map[string]string

	mu     sync.Mutex // guards proved
	proved map[string]bool
}

var table = readTable()

// readTable reads the items of the list under the title, each of which may go on over
// several lines.
func readTable() *differences {
	d := &differences{lines: make(map[string]string), proved: make(map[string]bool)}
	source, err := os.ReadFile(tableFile)
	if err != nil {
		panic(err)
	}
	_, section, found := strings.Cut(string(source), tableTitle)
	if !found {
		panic(tableFile + " has no section " + tableTitle)
	}
	section, _, _ = strings.Cut(section, "\n// # ")
	for _, item := range strings.Split(section, "\n//   - ")[1:] {
		var words []string
		for line := range strings.Lines(item) {
			text, indented := strings.CutPrefix(line, "//     ")
			if len(words) > 0 && !indented {
				break
			}
			words = append(words, strings.Fields(text)...)
		}
		text := strings.Join(words, " ")
		name, _, _ := strings.Cut(text, ": ")
		d.lines[name] = text
	}
	return d
}

// prove remembers that a script has shown the difference, and returns the line of the
// table; false if there is none.
func (d *differences) prove(name string) (line string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proved[name] = true
	line, ok = d.lines[name]
	return line, ok
}

// unproved says which lines no script has shown.
func (d *differences) unproved() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for name, line := range d.lines {
		if !d.proved[name] {
			fmt.Fprintf(&b, "%s: no script has proved this difference: %s\n", tableFile, line)
		}
	}
	return b.String()
}
