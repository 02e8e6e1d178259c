package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
)

// modulePath is what an import of this module's packages starts with.
const modulePath = "github.com/millrace/millrace"

// A sourceFile is one Go file, whatever its build constraints: an arrow that
// only Windows sees is an arrow.
type sourceFile struct {
	path      string // from the root, with slashes
	pkg       string // the name in its package clause
	doc       string // its package comment, "" if none
	lines     int
	generated bool // starts with Go's standard "Code generated" line
	beside    bool // belongs to another module in this repository
	imports   []importSpec
}

type importSpec struct {
	path string
	line int
}

func (f sourceFile) folder() string { return path.Dir(f.path) }
func (f sourceFile) isTest() bool   { return strings.HasSuffix(f.path, "_test.go") }

// theTree reads this repository. It goes through the os package of this
// process, not through a go list beside it, so that Go's test cache knows what
// was read and never calls an old verdict on a new tree "ok (cached)".
func theTree(t *testing.T) []sourceFile {
	t.Helper()
	files, err := readTree(os.DirFS(repository))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go file: is the repository's root still " + repository + "?")
	}
	return files
}

// repository is its root, as seen from this package's folder, where go test
// runs.
const repository = "../.."

// readTree parses the package clause and the imports of every Go file of root,
// in the order of their paths. It leaves out the folders that the go command
// leaves out.
func readTree(root fs.FS) ([]sourceFile, error) {
	var files []sourceFile
	var besides []string // folders of other modules, with a slash at the end
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := path.Base(name)
			if name != "." && (base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				besides = append(besides, name+"/")
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parse(name, source)
		if err != nil {
			return err
		}
		for _, folder := range besides {
			file.beside = file.beside || strings.HasPrefix(name, folder)
		}
		files = append(files, file)
		return nil
	})
	return files, err
}

func parse(name string, source []byte) (sourceFile, error) {
	positions := token.NewFileSet()
	syntax, err := parser.ParseFile(positions, name, source, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return sourceFile{}, err
	}
	file := sourceFile{
		path:      name,
		pkg:       syntax.Name.Name,
		doc:       syntax.Doc.Text(),
		lines:     bytes.Count(source, []byte("\n")),
		generated: ast.IsGenerated(syntax),
	}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return sourceFile{}, err
		}
		file.imports = append(file.imports, importSpec{imported, positions.Position(spec.Pos()).Line})
	}
	return file, nil
}
