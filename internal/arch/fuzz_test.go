package arch

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\) \{\n((?:\t.*\n|\n)*)\}`)
	fuzzHeader = []byte("go test fuzz v1\n")
)

// A fuzzer without seeds finds nothing in the time that it gets, and a seed in the wrong
// folder, or of another form, is never read, and nobody is told.
func TestEveryFuzzTargetHasSeedsAndEverySeedATarget(t *testing.T) {
	tree := os.DirFS(repository)
	targets := map[string]bool{} // folder/testdata/fuzz/target
	seeds := map[string]int{}    // the same
	err := fs.WalkDir(tree, ".", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && file != ".":
			return fs.SkipDir
		case strings.HasSuffix(file, "_test.go"):
			source, err := fs.ReadFile(tree, file)
			for _, m := range fuzzTarget.FindAllSubmatch(source, -1) {
				at := path.Join(path.Dir(file), "testdata/fuzz", string(m[1]))
				targets[at] = true
				seeds[at] += bytes.Count(m[2], []byte("f.Add("))
			}
			return err
		case strings.Contains(file, "testdata/fuzz/") && !e.IsDir():
			content, err := fs.ReadFile(tree, file)
			if !bytes.HasPrefix(content, fuzzHeader) {
				t.Errorf("%s is no seed: it does not begin with %q", file, fuzzHeader)
			}
			seeds[path.Dir(file)]++
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for at, n := range seeds {
		if n == 0 {
			t.Errorf("%s has no seed: call f.Add, or put a file into %s", path.Base(at), at)
		}
		if !targets[at] {
			t.Errorf("no Fuzz target reads the seeds in %s", at)
		}
	}
	if len(targets) < 10 {
		t.Errorf("found only %d Fuzz targets: have they another form now?", len(targets))
	}
}
