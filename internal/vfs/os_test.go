package vfs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestMain makes this program the other process that holds a lock.
func TestMain(m *testing.M) {
	if name := os.Getenv("VFS_TEST_HOLD_LOCK"); name != "" {
		if _, err := OS().Lock(name); err != nil {
			panic(err)
		}
		fmt.Println("locked")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		return
	}
	os.Exit(m.Run())
}

func TestALockNamesTheProcessThatHoldsIt(t *testing.T) {
	name := t.TempDir() + "/LOCK"
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "VFS_TEST_HOLD_LOCK="+name)
	stdin, err := other.StdinPipe()
	must(t, err)
	stdout, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}

	_, err = OS().Lock(name)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process "+strconv.Itoa(other.Process.Pid)) {
		t.Errorf("got %v, want ErrLocked by process %d", err, other.Process.Pid)
	}

	must(t, other.Process.Kill())
	_ = other.Wait() // "killed"
	_ = stdin.Close()
	lock, err := OS().Lock(name)
	if err != nil {
		t.Fatalf("the lock outlived its process: %v", err)
	}
	must(t, lock.Close())
}

func TestFilesAreTheirOwnersAlone(t *testing.T) {
	dir := t.TempDir() + "/data"
	must(t, OS().MkdirAll(dir))
	create(t, OS(), dir+"/log", "")
	for name, want := range map[string]os.FileMode{dir: 0o700, dir + "/log": 0o600} {
		info, err := os.Stat(name)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
}

func TestAFileIsReadAndWrittenAndSyncedAtOnce(t *testing.T) {
	everyFS(t, func(t *testing.T, fs FS, dir string) {
		f := create(t, fs, dir+"/log", strings.Repeat("-", 400))
		var group sync.WaitGroup
		for i := range 4 {
			letter := string(rune('a' + i))
			group.Go(func() {
				for j := range 100 {
					_, err := f.WriteAt([]byte(letter), int64(100*i+j))
					if err == nil && j%10 == 0 {
						err = f.Sync()
					}
					if err == nil {
						_, err = f.ReadAt(make([]byte, 100), int64(100*i))
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		want := strings.Repeat("a", 100) + strings.Repeat("b", 100) + strings.Repeat("c", 100) + strings.Repeat("d", 100)
		if got := contents(t, f); got != want {
			t.Errorf("got %q", got)
		}
	})
}
