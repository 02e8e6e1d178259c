package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// everyFS runs a claim about FS against each implementation, in an empty directory.
func everyFS(t *testing.T, claim func(t *testing.T, fs FS, dir string)) {
	t.Run("OS", func(t *testing.T) { claim(t, OS(), t.TempDir()) })
	t.Run("Mem", func(t *testing.T) {
		mem := NewMem()
		must(t, mem.MkdirAll("/some/dir"))
		claim(t, mem, "/some/dir")
	})
	t.Run("Inject", func(t *testing.T) {
		claim(t, Inject(NewMem(), func(Op) error { return nil }), ".")
	})
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/log", "hello, world")
		write(t, f, "H", 0)
		write(t, f, "end", 20)
		if got, want := contents(t, f), "Hello, world\x00\x00\x00\x00\x00\x00\x00\x00end"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		must(t, f.Truncate(5))
		must(t, f.Truncate(7))
		if got, want := contents(t, f), "Hello\x00\x00"; got != want {
			t.Errorf("after truncating: got %q, want %q", got, want)
		}
		must(t, f.Sync())
		must(t, f.Close())
		again := open(t, fs, dir+"/log")
		if got, want := contents(t, again), "Hello\x00\x00"; got != want {
			t.Errorf("opened again: got %q, want %q", got, want)
		}
	})
}

func TestReadingAtTheEndSaysEOF(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/log", "hello")
		for _, at := range []int64{3, 5, 9} {
			want := max(0, 5-int(at))
			if n, err := f.ReadAt(make([]byte, 4), at); n != want || !errors.Is(err, io.EOF) {
				t.Errorf("at %d: got %d, %v, want %d, EOF", at, n, err, want)
			}
		}
		if n, err := f.ReadAt(make([]byte, 2), 3); n != 2 || err != nil {
			t.Errorf("up to the end: got %d, %v, want 2 and no error", n, err)
		}
	})
}

func TestErrorsSayWhichFile(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
		create(t, fsys, dir+"/taken", "")
		closed := create(t, fsys, dir+"/closed", "")
		must(t, closed.Close())
		must(t, fsys.MkdirAll(dir+"/full/house"))
		_, createErr := fsys.Create(dir + "/taken")
		_, nowhereErr := fsys.Create(dir + "/nowhere/x")
		_, openErr := fsys.Open(dir + "/missing")
		_, listErr := fsys.List(dir + "/missing")
		_, lockErr := fsys.Lock(dir + "/missing/lock")
		_, sizeErr := closed.Size()
		_, readErr := closed.ReadAt(make([]byte, 1), 0)
		_, writeErr := closed.WriteAt(make([]byte, 1), 0)
		for name, test := range map[string]struct{ got, want error }{
			"create taken":       {createErr, fs.ErrExist},
			"create nowhere":     {nowhereErr, fs.ErrNotExist},
			"open missing":       {openErr, fs.ErrNotExist},
			"list missing":       {listErr, fs.ErrNotExist},
			"lock nowhere":       {lockErr, fs.ErrNotExist},
			"remove missing":     {fsys.Remove(dir + "/missing"), fs.ErrNotExist},
			"rename missing":     {fsys.Rename(dir+"/missing", dir+"/x"), fs.ErrNotExist},
			"sync missing dir":   {fsys.SyncDir(dir + "/missing"), fs.ErrNotExist},
			"remove a full dir":  {fsys.Remove(dir + "/full"), fs.ErrExist}, // what Go calls ENOTEMPTY
			"size of closed":     {sizeErr, fs.ErrClosed},
			"read of closed":     {readErr, fs.ErrClosed},
			"write to closed":    {writeErr, fs.ErrClosed},
			"sync of closed":     {closed.Sync(), fs.ErrClosed},
			"truncate closed":    {closed.Truncate(0), fs.ErrClosed},
			"close again":        {closed.Close(), fs.ErrClosed},
			"remove all missing": {fsys.RemoveAll(dir + "/missing/entirely"), nil},
		} {
			if !errors.Is(test.got, test.want) {
				t.Errorf("%s: got %v, want %v", name, test.got, test.want)
			}
			var pathErr *fs.PathError
			var linkErr *os.LinkError
			if test.want != nil && !errors.As(test.got, &pathErr) && !errors.As(test.got, &linkErr) {
				t.Errorf("%s: %v names no file", name, test.got)
			}
		}
	})
}

func TestNamesComeAndGo(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		must(t, fs.MkdirAll(dir+"/a/b"))
		must(t, fs.MkdirAll(dir+"/a/b")) // again is no error
		create(t, fs, dir+"/2", "two")
		create(t, fs, dir+"/1", "one")
		create(t, fs, dir+"/a/b/c", "see")
		wantNames(t, fs, dir, "1", "2", "a")

		must(t, fs.Rename(dir+"/1", dir+"/2"))
		wantNames(t, fs, dir, "2", "a")
		if got := contents(t, open(t, fs, dir+"/2")); got != "one" {
			t.Errorf("the renamed file reads %q, want %q", got, "one")
		}
		must(t, fs.Rename(dir+"/a", dir+"/z"))
		wantNames(t, fs, dir+"/z/b", "c")
		must(t, fs.Rename(dir+"/2", dir+"/2"))

		must(t, fs.SyncDir(dir))
		must(t, fs.Remove(dir+"/2"))
		must(t, fs.RemoveAll(dir+"/z"))
		wantNames(t, fs, dir)
	})
}

func TestRenameStaysInItsDirectory(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		must(t, fs.MkdirAll(dir+"/a"))
		create(t, fs, dir+"/x", "")
		if err := fs.Rename(dir+"/x", dir+"/a/x"); err == nil {
			t.Error("renamed to another directory")
		}
		wantNames(t, fs, dir, "a", "x")
	})
}

func TestARemovedFileCanStillBeUsed(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/log", "hello")
		must(t, fs.Remove(dir+"/log"))
		create(t, fs, dir+"/log", "another")
		write(t, f, "H", 0)
		must(t, f.Sync())
		if got := contents(t, f); got != "Hello" {
			t.Errorf("got %q, want %q", got, "Hello")
		}
	})
}

func TestALockHasOneHolder(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		lock, err := fs.Lock(dir + "/LOCK")
		must(t, err)
		if _, err := fs.Lock(dir + "/LOCK"); !errors.Is(err, ErrLocked) {
			t.Errorf("a second lock: got %v, want ErrLocked", err)
		}
		other, err := fs.Lock(dir + "/OTHER")
		must(t, err)
		must(t, other.Close())
		must(t, lock.Close())
		lock, err = fs.Lock(dir + "/LOCK")
		must(t, err)
		must(t, lock.Close())
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fs FS, name, text string) File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() }) // some tests have closed it
	write(t, f, text, 0)
	return f
}

func open(t testing.TB, fs FS, name string) File {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func write(t testing.TB, f File, text string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(text), off); n != len(text) || err != nil {
		t.Fatalf("WriteAt: %d of %d bytes, %v", n, len(text), err)
	}
}

func contents(t testing.TB, f File) string {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	buf := make([]byte, size)
	if n, err := f.ReadAt(buf, 0); n != len(buf) || (err != nil && !errors.Is(err, io.EOF)) {
		t.Fatalf("ReadAt: %d of %d bytes, %v", n, len(buf), err)
	}
	return string(buf)
}

func wantNames(t testing.TB, fs FS, dir string, want ...string) {
	t.Helper()
	got, err := fs.List(filepath.Clean(dir))
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}
