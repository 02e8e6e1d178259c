package broker_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// holdDirectory names the environment variable that makes the test binary a process
// that publishes to the directory it names, until it is killed.
const holdDirectory = "MILLRACE_TEST_HOLD_DIRECTORY"

func holdDir(dir string) int {
	b, err := broker.Open(broker.Options{Dir: dir, Sync: broker.SyncNever})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ch, err := b.Channel("t", "c")
	if err != nil {
		fmt.Println(ch, err)
		return 1
	}
	c, err := b.Subscribe("t", "c", millrace.SubscribeOptions{})
	for i := 0; err == nil; i += 10 {
		if err = b.Publish("t", messages(numbers(i, i+10)...)); err != nil {
			break
		}
		fmt.Println(i + 10) // so many were accepted
		buf := make([]millrace.Delivery, 3)
		if n, err := c.Receive(context.Background(), buf); err == nil {
			_ = c.Ack(context.Background(), buf[:n]...)
		}
	}
	fmt.Println(err)
	return 1
}

// startHolder starts such a process, and returns when it has the directory.
func startHolder(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdDirectory+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the process said nothing")
	}
	return cmd, lines
}

func TestADirectoryInUseByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	holder, lines := startHolder(t, dir)
	go func() {
		for lines.Scan() {
		}
	}()
	_, err := broker.Open(broker.Options{Dir: dir})
	if !errors.Is(err, broker.ErrInUse) {
		t.Fatal(err)
	}
	wantSentence(t, err, fmt.Sprintf("process %d", holder.Process.Pid), "stop the other process or choose another directory", dir)
}

func TestADirectoryInUseByAnotherBroker(t *testing.T) {
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	if _, err := broker.Open(broker.Options{Dir: dir}); !errors.Is(err, broker.ErrInUse) {
		t.Error(err)
	}
	b.publish("t", "a")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, broker.Options{Dir: dir})
}

// Without any sync: what Publish has accepted survives the death of the process.
func TestAKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	holder, lines := startHolder(t, dir)
	accepted := lines.Text()
	for range 200 {
		if lines.Scan() {
			accepted = lines.Text()
		}
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what it said before it was gone
		accepted = lines.Text()
	}
	_ = holder.Wait()
	var n int
	if _, err := fmt.Sscan(accepted, &n); err != nil {
		t.Fatal(accepted, err)
	}
	b := open(t, broker.Options{Dir: dir})
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
	seen := map[string]bool{}
	for !seen[numbers(n-1, n)[0]] {
		ds := receive(t, c, 1)
		for _, d := range ds {
			seen[string(d.Body)] = true
		}
		ack(t, c, ds...)
	}
	// The first ones were acked, of which the last may have come again.
	first := n
	for body := range seen {
		var i int
		_, _ = fmt.Sscan(body, &i)
		first = min(first, i)
	}
	if want := n - first; len(seen) < want {
		t.Errorf("%d of the %d messages from %d to %d came", len(seen), want, first, n)
	}
	if first > n*3/10+10 {
		t.Errorf("the first that came is %d of %d, which was never delivered before", first, n)
	}
}

// wantSentence makes sure that an error is one line that says what to do.
func wantSentence(t *testing.T, err error, words ...string) {
	t.Helper()
	t.Log(err)
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func TestAnUnusableDirectorySaysWhichAndWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := broker.Open(broker.Options{Dir: filepath.Join(file, "data")})
	if !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	wantSentence(t, err, "data directory "+file+"/data cannot be used", "a file stands there", "choose another name")

	for _, kind := range []vfs.OpKind{vfs.OpMkdirAll, vfs.OpLock, vfs.OpCreate} {
		readOnly := vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
			if op.Kind == kind {
				return &os.PathError{Op: "open", Path: op.Name, Err: syscall.EACCES}
			}
			return nil
		})
		_, err := broker.Open(broker.Options{Dir: "data", Logger: quiet()}.On(readOnly))
		if !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
		wantSentence(t, err, "data directory data cannot be used", "permission denied", "make it readable and writable, or choose another directory")
	}
}

func TestAFullDiskAtTheStartIsSaidToBeFull(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetFree(0)
	_, err := broker.Open(broker.Options{Dir: "data"}.On(disk))
	if !errors.Is(err, millrace.ErrNoSpace) {
		t.Error(err)
	}
	wantSentence(t, err, "no space left", "make room")
	disk.SetFree(1 << 20)
	open(t, broker.Options{Dir: "data"}.On(disk)).publish("t", "a")
}

// A newer version's file is intact, and says so: nothing is changed, nothing deleted.
func TestAFileOfANewerVersionIsLeftAlone(t *testing.T) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	reseal := func(name string, b []byte) {
		sum := crc32.Checksum([]byte("t.topic/"+name), castagnoli)
		sum = crc32.Update(crc32.Update(sum, castagnoli, b[:12]), castagnoli, b[16:])
		binary.LittleEndian.PutUint32(b[12:], sum)
	}
	for _, c := range []struct {
		file  string
		newer func(b []byte) []byte
	}{
		{"FORMAT", func([]byte) []byte {
			return fmt.Appendf(nil, "millrace 2 %08x\n", crc32.Checksum([]byte("millrace 2"), castagnoli))
		}},
		{"topics/t.topic/c.ledger", func(b []byte) []byte {
			b[8], b[48] = 2, 2
			reseal("c.ledger", b[:40])
			reseal("c.ledger", b[40:80])
			return b
		}},
		{"topics/t.topic/RELEASED", func(b []byte) []byte {
			b[8], b[40] = 2, 2
			reseal("RELEASED", b[:32])
			reseal("RELEASED", b[32:64])
			return b
		}},
		{"topics/t.topic/0000000000000001.seg", func(b []byte) []byte {
			for at := 0; at < 128; at += 64 {
				b[at+8] = 2
				binary.LittleEndian.PutUint32(b[at+60:], crc32.Checksum(b[at:at+60], castagnoli))
			}
			return b
		}},
	} {
		t.Run(c.file, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, broker.Options{Dir: dir})
			b.publish("t", "a", "b")
			b.subscribe("t", "c", millrace.SubscribeOptions{})
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, c.file)
			old, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			newer := c.newer(slices.Clone(old))
			if err := os.WriteFile(path, newer, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = broker.Open(broker.Options{Dir: dir, Logger: quiet()})
			if !errors.Is(err, broker.ErrNewerVersion) {
				t.Fatal(err)
			}
			wantSentence(t, err, dir, "format 2", "reads format 1", "newer version of millrace", "use that version")
			if now, _ := os.ReadFile(path); string(now) != string(newer) {
				t.Error("the file was changed")
			}
			if err := os.WriteFile(path, old, 0o600); err != nil {
				t.Fatal(err)
			}
			b = open(t, broker.Options{Dir: dir})
			wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 2), "a@1 b@1")
		})
	}
}

// Only the whole topic can be renamed away: what a crash left behind goes at the start.
func TestAnInterruptedDeletionIsFinishedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	b.publish("t", "a")
	_ = b.Close()
	topics := filepath.Join(dir, "topics")
	if err := os.Rename(filepath.Join(topics, "t.topic"), filepath.Join(topics, "t.gone")); err != nil {
		t.Fatal(err)
	}
	for _, litter := range []string{"other", "bad name.topic"} {
		if err := os.Mkdir(filepath.Join(topics, litter), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b = open(t, broker.Options{Dir: dir})
	if ts := b.Topics(); len(ts) != 0 {
		t.Errorf("%v", ts)
	}
	left, _ := os.ReadDir(topics)
	if len(left) != 2 {
		t.Errorf("%v", left)
	}
}

func TestAnOpenBrokerWaitsForNobodyToReadItsMessages(t *testing.T) {
	// A consumer that is slow, or not there, never holds up a publisher.
	b := open(t, broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever})
	b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			b.publish("t", numbers(i, i+100)...)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal(io.ErrNoProgress)
	}
}
