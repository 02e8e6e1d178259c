package arch

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// standalone is what README offers to any program for free, whatever the table
// says today.
var standalone = []string{".", "mpmc", "supervise", "fanin", "replica"}

// A user's program that imports one standalone package, and nothing else of
// Millrace, is listed by the real go command with nothing downloaded and no
// network to download from: so it compiles that package, those its row names,
// and the standard library.
func TestAProgramCompilesOnlyWhatItImports(t *testing.T) {
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	folders := foldersOf(theTree(t))
	for _, folder := range standalone {
		i := slices.IndexFunc(table, func(r row) bool { return r.folder == folder && r.standalone })
		if i < 0 {
			t.Errorf("%s is not standalone in the table, but the project promises that it is.", called(folder))
			continue
		}
		if !slices.Contains(folders, folder) {
			continue // it has a row before it has code
		}
		t.Run(called(folder), func(t *testing.T) {
			imported := path.Join(modulePath, folder)
			want := []string{"example.org/program", imported}
			for _, used := range mayUse(table, i) {
				want = append(want, path.Join(modulePath, used))
			}
			got := compiledBy(t, root, imported)
			for _, compiled := range got {
				if !slices.Contains(want, compiled) {
					t.Errorf("A program that imports only %s compiles %s too.", called(folder), compiled)
				}
			}
			if !slices.Contains(got, imported) {
				t.Errorf("go list did not name %s itself, only %q.", called(folder), got)
			}
		})
	}
}

// compiledBy returns the packages, without the standard library's, that go into
// a program of another module whose only import is imported.
func compiledBy(t *testing.T, root, imported string) []string {
	t.Helper()
	program := t.TempDir()
	files := map[string]string{
		"go.mod": "module example.org/program\n\ngo 1.26.0\n\n" +
			"require " + modulePath + " v0.0.0\n\n" +
			"replace " + modulePath + " => " + root + "\n",
		"main.go": "package main\n\nimport _ \"" + imported + "\"\n\nfunc main() {}\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(program, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	list.Dir = program
	list.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "GOPROXY=off", "GOMODCACHE="+t.TempDir())
	var stderr strings.Builder
	list.Stderr = &stderr
	output, err := list.Output()
	if err != nil {
		t.Fatalf("A program that imports only %s cannot be built without other modules: %v\n%s", imported, err, &stderr)
	}
	return strings.Fields(string(output))
}
