package task

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/supervise"
	"github.com/millrace/millrace/worker"
)

// These tests run real processes in real time. The grace is as short as a busy
// machine allows; late bounds are generous.
const (
	testGrace = 250 * time.Millisecond
	generous  = 5 * time.Second
)

func TestMain(m *testing.M) {
	if script := os.Getenv("TASK_TEST_RUN_AND_DIE"); script != "" {
		runUntilKilled(script)
	}
	goleak.VerifyTestMain(m)
}

var errEnough = errors.New("that was long enough")

// group runs a shell script in which `ready` says that all is set up. If stop is not
// negative, the context of the task ends that long after it, with errEnough. It returns
// the id of the process group, what Handle returned, and how long that took from the
// end of the context or else from the beginning.
func group(t *testing.T, stop time.Duration, cfg Config, script string) (pgid int, out string, took time.Duration, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	c := sh(t, cfg, `file=$1; ready() { echo $$ >$file.new; mv $file.new $file; }; `+script)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	from := time.Now()
	var watch sync.WaitGroup
	watch.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if content, err := os.ReadFile(file); err == nil {
				pgid, _ = strconv.Atoi(strings.TrimSpace(string(content)))
				break
			}
		}
		if stop >= 0 {
			time.Sleep(stop)
			from = time.Now()
			cancel(errEnough)
		}
	})
	result, err := c.Handle(ctx, &worker.Task{Payload: []byte(file)})
	now := time.Now()
	watch.Wait()
	if pgid == 0 {
		t.Fatalf("the command did not begin: %v", err)
	}
	return pgid, string(result), now.Sub(from), err
}

// never is for a group that ends by itself.
const never = -1

// nothingLeft checks that the group has no process any more, but for those that are
// dead and wait for their parent, which is not us.
func nothingLeft(t *testing.T, pgid int) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(generous); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if left = members(pgid); len(left) == 0 {
			return
		}
	}
	t.Errorf("left in group %d: %q", pgid, left)
	_ = syscall.Kill(-pgid, syscall.SIGKILL)
}

// members lists the processes of a group that are not zombies.
func members(pgid int) (list []string) {
	if err := syscall.Kill(-pgid, 0); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		content, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (name) state ppid pgrp …
		fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
		if fields[2] == strconv.Itoa(pgid) && fields[0] != "Z" && fields[0] != "X" {
			list = append(list, string(content))
		}
	}
	return list
}

func TestWhenTheContextEndsTheWholeGroupIsKilled(t *testing.T) {
	for name, script := range map[string]string{
		"a willing command":                     `ready; exec sleep 1000`,
		"a command with children":               `sleep 1000 & sleep 1000 & ready; wait`,
		"grandchildren":                         `sh -c 'sleep 1000 & sleep 1000' & ready; wait`,
		"a pipeline":                            `ready; sleep 1000 | cat | cat`,
		"one that is stopped":                   `ready; kill -STOP $$`,
		"one that ignores SIGTERM":              `trap "" TERM; ready; sleep 1000`,
		"children that ignore SIGTERM":          `trap "" TERM; sleep 1000 & sleep 1000 & ready; wait`,
		"one that has exited, but children not": `trap "" TERM; sleep 1000 & ready; exit 0`,
		"one that closed its output":            `ready; exec >&- 2>&-; sleep 1000`,
		"one that writes all the time":          `trap "" TERM; ready; while :; do echo; done`,
		"one that writes errors all the time":   `ready; yes >&2`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pgid, out, took, err := group(t, 20*time.Millisecond, Config{}, script)
			if !errors.Is(err, errEnough) || out != "" {
				t.Errorf("%q, %v", out, err)
			}
			if took > generous {
				t.Errorf("took %v", took)
			}
			nothingLeft(t, pgid)
		})
	}
}

func TestSIGTERMComesFirstAndLeavesTimeToTidyUp(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "tidied")
	// The children of the shell get the signal too: wait returns at once.
	pgid, _, took, err := group(t, 50*time.Millisecond, Config{Grace: generous},
		`trap "sleep 0.1; touch `+mark+`; exit 0" TERM; sleep 1000 & ready; wait`)
	if !errors.Is(err, errEnough) || took >= generous {
		t.Errorf("%v after %v: an attempt that was stopped is no success", err, took)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error("it was killed before it had tidied up")
	}
	nothingLeft(t, pgid)
}

// Something that is stopped gets SIGTERM only when it goes on.
func TestACommandThatIsStoppedMayTidyUpToo(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "tidied")
	pgid, _, took, _ := group(t, 100*time.Millisecond, Config{Grace: generous},
		`trap "touch `+mark+`; exit 0" TERM; ready; kill -STOP $$; sleep 1000`)
	if _, err := os.Stat(mark); err != nil || took >= generous {
		t.Errorf("it was killed after %v before it had tidied up", took)
	}
	nothingLeft(t, pgid)
}

func TestSIGKILLComesNotBeforeTheGrace(t *testing.T) {
	const grace = 400 * time.Millisecond
	pgid, _, took, _ := group(t, 0, Config{Grace: grace}, `trap "" TERM; ready; sleep 1000`)
	if took < grace || took > grace+generous {
		t.Errorf("took %v", took)
	}
	nothingLeft(t, pgid)
}

func TestWhatACommandLeavesBehindIsKilled(t *testing.T) {
	t.Run("at once when it holds no output", func(t *testing.T) {
		pgid, out, took, err := group(t, never, Config{Grace: time.Minute}, `ready; sleep 1000 >/dev/null 2>&1 & echo done`)
		if out != "done\n" || err != nil || took > generous {
			t.Errorf("%q, %v after %v", out, err, took)
		}
		nothingLeft(t, pgid)
	})
	t.Run("after the grace when it does, which is a failure", func(t *testing.T) {
		pgid, _, took, err := group(t, never, Config{}, `ready; sleep 1000 & echo done`)
		if !errors.Is(err, ErrLeftBehind) || took < testGrace || took > generous {
			t.Errorf("%v after %v", err, took)
		}
		nothingLeft(t, pgid)
	})
}

func TestChildrenMayFinishTheOutputWithinTheGrace(t *testing.T) {
	pgid, out, _, err := group(t, never, Config{Grace: generous}, `ready; (sleep 0.2; echo late) & echo early`)
	if out != "early\nlate\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	nothingLeft(t, pgid)
}

// A daemon has left the group: it is not ours to kill, but it must not hold us up.
func TestADaemonThatHoldsTheOutputHoldsNobodyUp(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("no setsid here")
	}
	daemon := filepath.Join(t.TempDir(), "daemon")
	_, _, took, err := group(t, never, Config{},
		`ready; setsid sh -c 'echo $$ >`+daemon+`; exec sleep 1000' & until [ -s `+daemon+` ]; do sleep 0.01; done`)
	if !errors.Is(err, ErrLeftBehind) || took > generous {
		t.Errorf("%v after %v", err, took)
	}
	content, err := os.ReadFile(daemon)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(content)))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the daemon is gone: %v", err)
	}
}

// Whoever kills a command with SIGKILL, such as the kernel when memory is short, has
// killed a replica: that is no fault of the task's.
func TestACommandThatSomebodyElseKillsIsADeadReplica(t *testing.T) {
	_, _, _, err := group(t, never, Config{}, `ready; kill -KILL $$`)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || exit.Code != 128+9 {
		t.Errorf("got %#v", err)
	}
	if !is(err, worker.Redeliver) {
		t.Error("it would burn a retry")
	}
	if _, _, _, err := group(t, never, Config{}, `ready; kill -TERM $$`); err == nil || is(err, worker.Redeliver) {
		t.Errorf("SIGTERM, which is sent on purpose: %v", err)
	}
}

func TestTooMuchOutputKillsTheCommand(t *testing.T) {
	pgid, out, took, err := group(t, never, Config{MaxOutput: 100_000}, `ready; yes & yes`)
	if !errors.Is(err, ErrOutputTooLarge) || !isPermanent(err) || !strings.Contains(err.Error(), "100000 bytes") || out != "" {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if took > generous {
		t.Errorf("took %v", took)
	}
	nothingLeft(t, pgid)

	exactly := newCommand(t, Config{MaxOutput: 100_000}, "head", "-c", "{}", "/dev/zero")
	if got := mustHandle(t, exactly, "100000"); len(got) != 100_000 {
		t.Errorf("at the limit: %d bytes", len(got))
	}
	if _, err := handle(t, exactly, "100001"); !errors.Is(err, ErrOutputTooLarge) {
		t.Errorf("one over the limit: %v", err)
	}
}

// A worker with a TTL does not replace the replica of a silent command.
func TestARunningProcessIsASignOfLife(t *testing.T) {
	t.Parallel()
	silent := newCommand(t, Config{}, "sh", "-c", "sleep 2.5; echo done")
	runs := 0
	err := supervise.New(func(ctx context.Context, _ *supervise.Pulse) error {
		_, err := silent.Handle(ctx, &worker.Task{})
		runs++
		return err
	}, supervise.Config{TTL: 2 * time.Second, Restart: supervise.Temporary}).Serve(t.Context())
	if err != nil || runs != 1 {
		t.Errorf("%v, run %d times", err, runs)
	}
}

func TestACommandLeadsAGroupOfItsOwn(t *testing.T) {
	if got := strings.Fields(mustHandle(t, sh(t, Config{}, `echo $$; ps -o pgid= -p $$`), "")); len(got) != 2 || got[0] != got[1] {
		t.Errorf("the process and its group are %q", got)
	}
}

// Many commands at once, ended at random moments: nothing is left, no descriptor
// leaks, and no result is another's.
func TestCommandsThatAreStoppedAtRandomLeaveNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	before := openFiles(t)
	c := sh(t, Config{}, `echo "$1"; sleep 0.0$1; echo "$1"`)
	var all sync.WaitGroup
	for g := range 8 {
		random := rand.New(rand.NewPCG(seed, uint64(g)))
		all.Go(func() {
			for i := range 12 {
				payload := strconv.Itoa(random.IntN(40))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(60))*time.Millisecond)
				out, err := c.Handle(ctx, &worker.Task{Payload: []byte(payload)})
				cancel()
				if want := payload + "\n" + payload + "\n"; err == nil && string(out) != want {
					t.Errorf("%d: %q, want %q", i, out, want)
				} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	// What is kept for the next command is two descriptors each, for at most eight.
	if after := openFiles(t); after > before+2*8 {
		t.Errorf("%d files were open before, %d are after", before, after)
	}
	if left := children(); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children lists the children of this process, zombies too.
func children() (list []string) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		content, _ := os.ReadFile(file)
		list = append(list, strings.Fields(string(content))...)
	}
	return list
}

func runUntilKilled(script string) {
	c, err := New([]string{"sh", "-c", script}, Config{Stdin: true})
	if err == nil {
		_, err = c.Handle(context.Background(), &worker.Task{})
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(1)
}
