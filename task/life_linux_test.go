//go:build !portable

package task

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A wake may be late: for a stage that is over, or for the command that ran before.
func TestAWakeThatIsForNobodyChangesNothing(t *testing.T) {
	c := newCommand(t, Config{}, "sh")
	ready := filepath.Join(t.TempDir(), "ready")
	p, err := c.start("/bin/sh", []string{"sh", "-c", `trap "" TERM; echo >"$0"; sleep 1000`, ready}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	for _, err := os.Stat(ready); err != nil; _, err = os.Stat(ready) {
		time.Sleep(time.Millisecond)
	}
	p.poller.wake()
	time.AfterFunc(testGrace/2, p.poller.wake)
	begun := time.Now()
	p.stop(errEnough)
	p.poller.wake()
	if err := p.live(t.Context()); !errors.Is(err, errEnough) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took < testGrace || took > generous {
		t.Errorf("took %v", took)
	}
	if _, err := p.reap(); err != nil {
		t.Error(err)
	}
}

// When this program itself is killed, nobody is left to kill the commands: the kernel
// does it.
func TestWhenThisProcessIsKilledItsCommandsAreToo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "TASK_TEST_RUN_AND_DIE=echo $$ >"+file+".new; mv "+file+".new "+file+"; exec sleep 1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var content []byte
	for deadline := time.Now().Add(generous); len(content) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		content, _ = os.ReadFile(file)
	}
	_ = victim.Process.Kill()
	_ = victim.Wait()
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatalf("the command did not begin: %v", err)
	}
	nothingLeft(t, pid)
}
