package vfs

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func TestAFullDiskTakesWhatFits(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "12345678")
	mem.SetFree(4)
	n, err := f.WriteAt([]byte("abcdefgh"), 6)
	if n != 6 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %d, %v, want 6 bytes (2 over old ones, 4 new) and ENOSPC", n, err)
	}
	if got, want := contents(t, f), "123456abcdef"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	write(t, f, "ABCDEF", 0) // what has its place can be written over
	if n, err := f.WriteAt([]byte("x"), 100); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the end: got %d, %v, want 0, ENOSPC", n, err)
	}
}

func TestFreeIsWhatCanBeWritten(t *testing.T) {
	mem := NewMem()
	free := func() int64 {
		t.Helper()
		n, err := mem.Free(".")
		must(t, err)
		return n
	}
	f := create(t, mem, "log", "12345678")
	if n := free(); n < 1<<60 {
		t.Errorf("%d bytes on a disk without a limit", n)
	}
	mem.SetFree(4)
	write(t, f, "abc", 8)
	if n := free(); n != 1 {
		t.Errorf("%d bytes, want 1", n)
	}
	must(t, f.Truncate(0))
	if n := free(); n != 12 {
		t.Errorf("%d bytes, want 12", n)
	}
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
		if n, err := fsys.Free(dir); n <= 0 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if _, err := fsys.Free(dir + "/missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of a directory that is missing: %v", err)
		}
	})
}

func TestATruncationThatMakesAFileLongerReservesNothing(t *testing.T) {
	mem := NewMem()
	mem.SetFree(10)
	f := create(t, mem, "log", "")
	must(t, f.Truncate(1000))
	write(t, f, "0123456789", 500)
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
}

func TestADiskHasRoomAgain(t *testing.T) {
	for name, free := range map[string]func(t *testing.T, mem *Mem, f File){
		"after a truncation": func(t *testing.T, mem *Mem, f File) { must(t, f.Truncate(6)) },
		"after a removal": func(t *testing.T, mem *Mem, f File) {
			must(t, mem.Remove("log"))
			must(t, f.Close())
		},
		"after the directory's removal": func(t *testing.T, mem *Mem, f File) {
			must(t, mem.RemoveAll("dir"))
		},
		"after a rename over it": func(t *testing.T, mem *Mem, f File) {
			must(t, f.Close())
			must(t, mem.Rename("empty", "log"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := NewMem()
			f := create(t, mem, "log", "0123456789")
			must(t, mem.MkdirAll("dir"))
			must(t, create(t, mem, "dir/file", "0123456789").Close())
			other := create(t, mem, "empty", "")
			mem.SetFree(0)
			if _, err := other.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("before: got %v, want ENOSPC", err)
			}
			free(t, mem, f)
			write(t, other, "four", 0)
		})
	}
}

func TestARemovedFileTakesRoomUntilItIsClosed(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "0123456789")
	other := create(t, mem, "other", "")
	mem.SetFree(0)
	must(t, mem.Remove("log"))
	if _, err := other.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("while it is open: got %v, want ENOSPC", err)
	}
	must(t, f.Close())
	write(t, other, "0123456789", 0)
}

func TestAFullDiskIsFullAfterACrash(t *testing.T) {
	mem := NewMem()
	f := create(t, mem, "log", "0123456789")
	must(t, f.Sync())
	must(t, mem.SyncDir("."))
	mem.SetFree(3)
	write(t, f, "abc", 10)
	after := mem.Crash()
	if n, err := open(t, after, "log").WriteAt([]byte("abcdef"), 10); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %d, %v, want 3, ENOSPC", n, err)
	}
}

// extents against a string with a letter for each byte of the file.
func TestExtentsAreTheBytesThatWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 40
		var s extents
		model := strings.Repeat(".", size)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			lo := rapid.IntRange(0, size).Draw(t, "lo")
			if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
				s = s.cut(int64(lo))
				model = model[:lo] + strings.Repeat(".", size-lo)
			} else {
				hi := rapid.IntRange(lo, size).Draw(t, "hi")
				free := rapid.IntRange(0, size).Draw(t, "free")
				end, grown := s.room(int64(lo), int64(hi), int64(free))
				wantEnd, wantGrown := lo, 0
				for ; wantEnd < hi; wantEnd++ {
					if model[wantEnd] == '.' {
						if wantGrown == free {
							break
						}
						wantGrown++
					}
				}
				if end != int64(wantEnd) || grown != int64(wantGrown) {
					t.Fatalf("room(%d, %d, %d) of %v: got %d, %d, want %d, %d", lo, hi, free, s, end, grown, wantEnd, wantGrown)
				}
				if end > int64(lo) {
					s = s.add(int64(lo), end)
				}
				model = model[:lo] + strings.Repeat("x", wantEnd-lo) + model[wantEnd:]
			}
			if s.size() != int64(strings.Count(model, "x")) {
				t.Fatalf("%v has %d bytes, want those of %s", s, s.size(), model)
			}
		}
	})
}
