package vfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestACrashKeepsOnlyWhatWasSynced(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "synced")
	must(t, f.Sync())
	must(t, mem.SyncDir("."))
	write(t, f, "SYNCED and more", 0)
	must(t, f.Truncate(3))

	after := open(t, mem.Crash(), "log")
	if got := contents(t, after); got != "synced" {
		t.Errorf("after the crash: %q, want %q", got, "synced")
	}
	if got := contents(t, f); got != "SYN" {
		t.Errorf("in the world that did not crash: %q, want %q", got, "SYN")
	}
	must(t, f.Sync())
	if got := contents(t, open(t, mem.Crash(), "log")); got != "SYN" {
		t.Errorf("after a sync and a crash: %q, want %q", got, "SYN")
	}
}

func TestACrashUndoesWhatNoSyncDirMadeDurable(t *testing.T) {
	for _, test := range []struct {
		name     string
		change   func(FS) error
		unsynced string // the names after a crash
		synced   string // the names after a SyncDir and a crash
	}{
		{"create", func(fs FS) error { _, err := fs.Create("new"); return err }, "dir old", "dir new old"},
		{"mkdir", func(fs FS) error { return fs.MkdirAll("more/below") }, "dir old", "dir more old"},
		{"remove", func(fs FS) error { return fs.Remove("old") }, "dir old", "dir"},
		{"remove all", func(fs FS) error { return fs.RemoveAll("dir") }, "dir old", "old"},
		{"rename", func(fs FS) error { return fs.Rename("old", "new") }, "dir old", "dir new"},
		{"rename a directory", func(fs FS) error { return fs.Rename("dir", "folder") }, "dir old", "folder old"},
		{"lock", func(fs FS) error { _, err := fs.Lock("LOCK"); return err }, "dir old", "LOCK dir old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := NewMem()
			create(t, mem, "old", "")
			must(t, mem.MkdirAll("dir"))
			create(t, mem, "dir/file", "")
			must(t, mem.SyncDir("dir"))
			must(t, mem.SyncDir("."))
			must(t, test.change(mem))
			wantNames(t, mem.Crash(), ".", strings.Fields(test.unsynced)...)
			must(t, mem.SyncDir("."))
			wantNames(t, mem.Crash(), ".", strings.Fields(test.synced)...)
		})
	}
}

func TestSyncingADirectoryIsNotAboutThoseBelow(t *testing.T) {
	mem := NewMem()
	must(t, mem.MkdirAll("dir"))
	create(t, mem, "dir/file", "")
	must(t, mem.SyncDir("."))
	wantNames(t, mem.Crash(), "dir")
	must(t, mem.SyncDir("dir"))
	wantNames(t, mem.Crash(), "dir", "file")
}

func TestARenameReplacesAFileOrLeavesIt(t *testing.T) {
	mem := NewMem()
	must(t, create(t, mem, "file", "old").Sync())
	must(t, create(t, mem, "file.tmp", "new").Sync())
	must(t, mem.SyncDir("."))
	must(t, mem.Rename("file.tmp", "file"))

	seen := map[string]bool{}
	for seed := range uint64(100) {
		after := mem.CrashKeeping(rand.New(rand.NewPCG(seed, 0)))
		text := contents(t, open(t, after, "file"))
		_, err := after.Open("file.tmp")
		if old := text == "old"; old != (err == nil) || (!old && text != "new") {
			t.Fatalf("seed %d: file is %q, file.tmp: %v", seed, text, err)
		}
		seen[text] = true
	}
	if len(seen) != 2 {
		t.Errorf("only ever saw %v", seen)
	}
}

func TestAFileHasOneNameAfterACrash(t *testing.T) {
	mem := NewMem()
	create(t, mem, "a", "")
	must(t, mem.SyncDir("."))
	must(t, mem.Rename("a", "b"))
	must(t, mem.Rename("b", "c"))
	for seed := range uint64(50) {
		names, err := mem.CrashKeeping(rand.New(rand.NewPCG(seed, 0))).List(".")
		must(t, err)
		if len(names) != 1 {
			t.Fatalf("seed %d: it is called %q", seed, names)
		}
	}
}

func TestAWriteIsDoneWithItsBuffer(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "")
	must(t, mem.SyncDir("."))
	buf := []byte("text")
	_, err := f.WriteAt(buf, 0)
	must(t, err)
	clear(buf)
	must(t, f.Sync())
	if got := contents(t, open(t, mem.Crash(), "log")); got != "text" {
		t.Errorf("got %q", got)
	}
}

func TestLocksDieInACrash(t *testing.T) {
	mem := NewMem()
	_, err := mem.Lock("LOCK")
	must(t, err)
	must(t, mem.SyncDir("."))
	if _, err = mem.Crash().Lock("LOCK"); err != nil {
		t.Errorf("a lock of before the crash is still held: %v", err)
	}
}

// A write of four sectors, the first and last of them in part, over a file that is
// shorter: what crashes leave of it, and that they leave each of it sometimes.
func TestABadCrashTearsWritesAtSectors(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", strings.Repeat("o", 700))
	must(t, f.Sync())
	must(t, mem.SyncDir("."))
	write(t, f, strings.Repeat("n", 1500), 300)

	cuts := []int{0, 300, 512, 1024, 1536, 1800}
	seen := map[string]bool{}
	for seed := range uint64(2000) {
		after := mem.CrashKeeping(rand.New(rand.NewPCG(seed, 0)))
		text := contents(t, open(t, after, "log"))
		if text[:300] != strings.Repeat("o", 300) {
			t.Fatalf("seed %d: a sector changed that was not written to", seed)
		}
		shape := ""
		for i, lo := range cuts[:len(cuts)-1] {
			piece := text[min(lo, len(text)):min(cuts[i+1], len(text))]
			shape += uniform(t, piece, lo, 700)
		}
		seen[shape] = true
	}
	for _, shape := range []string{
		"ooo",   // nothing
		"onnnn", // everything
		"ono",   // only the first sector
		"ooo0n", // only the last
		"ooo00", // only the file's length
	} {
		if !seen[shape] {
			t.Errorf("never left %q; saw %v", shape, seen)
		}
	}
}

// uniform is the one letter that piece consists of; of one that was old up to a limit
// and zeros from there, "o".
func uniform(t *testing.T, piece string, at, oldEnd int) string {
	t.Helper()
	if piece == "" {
		return ""
	}
	if rest := strings.TrimLeft(piece, "o"); len(rest) < len(piece) {
		if strings.Trim(rest, "\x00") != "" || (rest != "" && at+len(piece)-len(rest) != oldEnd) {
			t.Fatalf("a sector is torn inside: %q", piece)
		}
		return "o"
	}
	if strings.Trim(piece, piece[:1]) != "" {
		t.Fatalf("a sector is torn inside: %q", piece)
	}
	return strings.ReplaceAll(piece[:1], "\x00", "0")
}

func TestABadCrashLosesNothingThatWasSynced(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		mem := NewMem()
		f := create(t, mem, "log", "")
		must(t, mem.SyncDir("."))
		synced := 0
		for end := 0; end < 8000; {
			n := 1 + r.IntN(900)
			write(t, f, strings.Repeat("x", n), int64(end))
			if end += n; r.IntN(3) == 0 {
				must(t, f.Sync())
				synced = end
			}
		}
		text := contents(t, open(t, mem.CrashKeeping(r), "log"))
		if len(text) < synced || text[:synced] != strings.Repeat("x", synced) {
			t.Fatalf("seed %d: of %d synced bytes not all are left", seed, synced)
		}
	}
}

func TestTheSameSeedCrashesTheSame(t *testing.T) {
	mem := NewMem()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		create(t, mem, name, strings.Repeat(name, 3000))
	}
	must(t, mem.SyncDir("."))
	var first string
	for range 5 {
		after := mem.CrashKeeping(rand.New(rand.NewPCG(7, 7)))
		names, err := after.List(".")
		must(t, err)
		all := ""
		for _, name := range names {
			all += name + ":" + contents(t, open(t, after, name)) + "\n"
		}
		if first == "" {
			first = all
		}
		if all != first {
			t.Fatal("two crashes with the same seed differ")
		}
	}
}

func TestAFlippedBitStaysFlipped(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "aaa")
	must(t, f.Sync())
	must(t, mem.SyncDir("."))
	write(t, f, "aaa", 2)
	mem.FlipBit("log", 2*8+1)
	if got, want := contents(t, f), "aacaa"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := contents(t, open(t, mem.Crash(), "log")), "aac"; got != want {
		t.Errorf("after a crash: got %q, want %q", got, want)
	}
	must(t, f.Sync())
	if got, want := contents(t, open(t, mem.Crash(), "log")), "aacaa"; got != want {
		t.Errorf("after a sync and a crash: got %q, want %q", got, want)
	}
}

func TestFilesOfALostDirectoryAreLost(t *testing.T) {
	mem := NewMem()
	must(t, mem.MkdirAll("dir"))
	f := create(t, mem, "dir/file", "text")
	must(t, f.Sync())
	must(t, mem.SyncDir("dir"))
	if _, err := mem.Crash().Open("dir/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}
