package vfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

func TestEveryCallIsAnnouncedBeforeItIsMade(t *testing.T) {
	var calls []string
	fs := Inject(NewMem(), func(op Op) error {
		calls = append(calls, op.String())
		return nil
	})
	useEverything(t, fs, nil)
	want := []string{
		"mkdirall dir", "create dir/a", "write dir/a +5 at 0", "sync dir/a", "read dir/a +2 at 3",
		"truncate dir/a to 1", "size dir/a", "close dir/a", "rename dir/a to dir/b", "open dir/b", "close dir/b",
		"list dir", "lock dir/LOCK", "free dir", "remove dir/b", "syncdir dir", "removeall dir",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("announced\n%q, want\n%q", calls, want)
	}
}

func TestACallThatIsRefusedIsNotMade(t *testing.T) {
	refusal := errors.New("no")
	for kind := range OpClose + 1 {
		t.Run(kind.String(), func(t *testing.T) {
			mem := NewMem()
			refused := 0
			useEverything(t, Inject(mem, func(op Op) error {
				if op.Kind == kind {
					refused++
					return refusal
				}
				return nil
			}), refusal)
			if refused == 0 {
				t.Error("never announced")
			}
		})
	}
	mem := NewMem()
	f := create(t, Inject(mem, func(op Op) error {
		if op.Kind == OpWrite && op.Off == 5 {
			return refusal
		}
		return nil
	}), "log", "hello")
	if n, err := f.WriteAt([]byte("x"), 5); n != 0 || !errors.Is(err, refusal) {
		t.Errorf("got %d, %v, want 0 and the refusal", n, err)
	}
	if got := contents(t, f); got != "hello" {
		t.Errorf("wrote nevertheless: %q", got)
	}
}

// useEverything makes every call there is. Each must succeed or, if there is a
// refusal, fail with that; files that could not be opened are not used.
func useEverything(t *testing.T, fs FS, refusal error) {
	t.Helper()
	ok := func(err error) bool {
		t.Helper()
		if err != nil && !errors.Is(err, refusal) && refusal == nil {
			t.Fatal(err)
		}
		return err == nil
	}
	ok(fs.MkdirAll("dir"))
	if f, err := fs.Create("dir/a"); ok(err) {
		_, err = f.WriteAt([]byte("hello"), 0)
		ok(err)
		ok(f.Sync())
		if _, err = f.ReadAt(make([]byte, 2), 3); !errors.Is(err, io.EOF) {
			ok(err)
		}
		ok(f.Truncate(1))
		_, err = f.Size()
		ok(err)
		ok(f.Close())
	}
	ok(fs.Rename("dir/a", "dir/b"))
	if f, err := fs.Open("dir/b"); ok(err) {
		ok(f.Close())
	}
	_, err := fs.List("dir")
	ok(err)
	if lock, err := fs.Lock("dir/LOCK"); ok(err) {
		ok(lock.Close())
	}
	_, err = fs.Free("dir")
	ok(err)
	ok(fs.Remove("dir/b"))
	ok(fs.SyncDir("dir"))
	ok(fs.RemoveAll("dir"))
}

// The way in which a log is tested: power fails at each of its writes and syncs.
func ExampleInject() {
	mem, left := NewMem(), 3
	var crashed *Mem
	fs := Inject(mem, func(op Op) error {
		if op.Kind == OpWrite || op.Kind == OpSync {
			if left--; left == 0 {
				crashed = mem.Crash()
			}
		}
		return nil
	})
	f, _ := fs.Create("log")
	_ = fs.SyncDir(".")
	_, _ = f.WriteAt([]byte("first,"), 0)
	_ = f.Sync()
	_, _ = f.WriteAt([]byte("second"), 6) // the third of them: it never happened
	_ = f.Sync()

	f, _ = crashed.Open("log")
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)

	fmt.Println(string(text[:n]))
	// Output: first,
}
