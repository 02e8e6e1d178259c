package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nsqio/go-nsq"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/peers/node"
)

// recordSize is what a message takes in the log: package seglog draws it.
const recordSize = messageSize + 33

// scales are the measurements of size, each of which prints its lines.
func (s *setup) scales() []struct {
	name string
	do   func(context.Context) error
} {
	return []struct {
		name string
		do   func(context.Context) error
	}{
		{fmt.Sprintf("a backlog of %d million messages", s.backlog/1e6), s.measureBacklog},
		{"one message deferred for a day in the middle of much that is consumed", s.measureDeferred},
		{"10 000 idle connections", s.measureConnections},
		{"1 000 topics with 4 channels each, idle", s.measureIdle},
	}
}

// scale runs the measurements of size.
func (s *setup) scale(ctx context.Context) error {
	for _, one := range s.scales() {
		if !s.only.MatchString(one.name) {
			continue
		}
		fmt.Printf("\n%s\n", one.name)
		if err := one.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// bound prints a figure beside what it must not exceed.
func bound(what string, figure, most float64, unit string) {
	verdict := "reached"
	if figure > most {
		verdict = "MISSED"
	}
	fmt.Printf("  %s: %s %.2f %s, wanted at most %.2f\n", verdict, what, figure, unit, most)
}

// floor prints a figure as a ratio, beside what it must reach.
func floor(what string, figure, of, least float64) {
	verdict := "reached"
	if figure/of < least {
		verdict = "MISSED"
	}
	fmt.Printf("  %s: %s is %.2f, wanted at least %.2f (%.0f k/s of %.0f k/s)\n", verdict, what, figure/of, least, figure/1000, of/1000)
}

// own starts a millrace serve of which more is known than of the other contestants.
func (s *setup) own(flags ...string) (p *node.Process, at *running, dir string, err error) {
	if dir, err = os.MkdirTemp(s.dir, "scale-"); err != nil {
		return nil, nil, "", err
	}
	if p, err = node.MillraceProcess(s.millrace, dir, append(flags, "--log-level=error")...); err != nil {
		return nil, nil, "", err
	}
	at, err = start(p, nil)
	return p, at, dir, err
}

// measureBacklog publishes a backlog, and looks at memory, publishing, start-up, and
// consuming it from a disk whose cache is cold.
func (s *setup) measureBacklog(ctx context.Context) error {
	p, at, dir, err := s.own("--sync=2s")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(p.Kill(), os.RemoveAll(dir)) }()
	if err := at.channel(topic, "ch"); err != nil {
		return err
	}
	if err := at.fill(int(3e6)); err != nil {
		return err
	}
	warm, err := s.benchReader(ctx, at)
	if err != nil {
		return err
	}
	if err := at.fill(s.backlog); err != nil {
		return err
	}
	var empty, full []float64
	for run := range s.runs {
		fresh := fmt.Sprintf("empty%d", run)
		if err := at.channel(fresh, "ch"); err != nil {
			return err
		}
		for _, side := range []struct {
			topic string
			rates *[]float64
		}{{topic, &full}, {fresh, &empty}} {
			unix.Sync() // else who comes first pays for what was written before
			rate, err := opsPerSecond(ctx, s.writer, "-runfor="+s.length.String(), "-nsqd-tcp-address="+at.tcp, "-topic="+side.topic, "-size=200", "-batch-size=200")
			if err != nil {
				return err
			}
			*side.rates = append(*side.rates, rate)
		}
	}
	bound("memory with the backlog", resident(p.Pid()), 200, "MB")
	floor("publishing to it, of publishing to an empty topic", median(full), median(empty), 0.9)
	return s.measureRestart(ctx, p, at, dir, warm)
}

// measureRestart starts the broker again on a backlog, and consumes from cold files.
func (s *setup) measureRestart(ctx context.Context, p *node.Process, at *running, dir string, warm float64) error {
	if err := p.Stop(); err != nil {
		return err
	}
	if err := dropCaches(dir); err != nil {
		return err
	}
	begun := time.Now()
	if err := p.Start(); err != nil {
		return err
	}
	bound("start-up", time.Since(begun).Seconds(), 2, "s")
	cold, err := s.benchReader(ctx, at)
	if err != nil {
		return err
	}
	bound("memory after a restart and consuming", resident(p.Pid()), 200, "MB")
	if err := dropCaches(dir); err != nil {
		return err
	}
	read, err := readAll(dir, s.length)
	if err != nil {
		return err
	}
	disk := read / recordSize
	fmt.Printf("  from memory %.0f k/s; a plain sequential read %.0f MB/s, which is %.0f k/s\n", warm/1000, read/1e6, disk/1000)
	floor("consuming the backlog with cold caches, of the smaller of the two", cold, min(warm, disk), 0.8)
	return nil
}

// measureDeferred consumes 10 GB but for one message.
func (s *setup) measureDeferred(ctx context.Context) error {
	p, at, dir, err := s.own("--sync=2s")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(p.Kill(), os.RemoveAll(dir)) }()
	if err := at.channel(topic, "ch"); err != nil {
		return err
	}
	most := int64(0)
	for part := range 10 {
		if err := at.fill(1_000_000_000 / recordSize); err != nil {
			return err
		}
		if part == 5 {
			if err := at.postBody(fmt.Sprintf("/pub?topic=%s&defer=%d", topic, 24*60*60*1000), "tomorrow"); err != nil {
				return err
			}
		}
		most = max(most, used(dir))
	}
	for left := 1; left > 0; {
		if _, err := s.benchReader(ctx, at); err != nil {
			return err
		}
		if left, err = at.depth(); err != nil {
			return err
		}
	}
	begun := time.Now()
	for used(dir) >= 100e6 && time.Since(begun) < time.Minute {
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("  %.1f GB at most, and %v after the last was consumed:\n", float64(most)/1e9, time.Since(begun).Round(time.Second))
	bound("the data directory", float64(used(dir))/1e6, 100, "MB")
	return nil
}

// measureConnections holds idle connections.
func (s *setup) measureConnections(context.Context) error {
	const many = 10_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur = max(limit.Cur, min(limit.Max, many+1000)); limit.Cur < many+1000 {
		return fmt.Errorf("a process can open %d files at most, %d are needed: ulimit -n", limit.Max, many+1000)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	p, at, dir, err := s.own("--sync=2s", "--max-connections=0")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(p.Kill(), os.RemoveAll(dir)) }()
	conns := make([]net.Conn, 0, many)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for i := range many {
		conn, err := net.Dial("tcp", at.tcp)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
		var hello bytes.Buffer
		hello.Write(nsq.MagicV2)
		_, _ = nsq.Subscribe(fmt.Sprintf("t%d", i%100), "ch").WriteTo(&hello)
		_, _ = nsq.Ready(1).WriteTo(&hello)
		if _, err := conn.Write(hello.Bytes()); err != nil {
			return err
		}
		if kind, data, err := nsq.ReadUnpackedResponse(conn); err != nil || kind != nsq.FrameTypeResponse {
			return fmt.Errorf("connection %d: %q, %w", i, data, err)
		}
	}
	bound("memory", resident(p.Pid()), 400, "MB")
	return nil
}

// measureIdle looks at what many idle topics cost.
func (s *setup) measureIdle(context.Context) error {
	p, at, dir, err := s.own("--sync=2s")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(p.Kill(), os.RemoveAll(dir)) }()
	for i := range 1000 {
		for c := range 4 {
			if err := at.channel(fmt.Sprintf("t%d", i), fmt.Sprintf("c%d", c)); err != nil {
				return err
			}
		}
	}
	time.Sleep(3 * time.Second) // what was just made is settled
	const watched = 10 * time.Second
	before, err := cpu(p.Pid())
	if err != nil {
		return err
	}
	time.Sleep(watched)
	after, err := cpu(p.Pid())
	bound("of one core", 100*(after-before).Seconds()/watched.Seconds(), 0.5, "%")
	bound("memory", resident(p.Pid()), 200, "MB")
	return err
}

// resident is the memory of a process in MB that is its own, without mapped files.
func resident(pid int) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kb / 1000
		}
	}
	return 0
}

// cpu is the time that a process has used.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}

// used is how many bytes of the disk a directory takes.
func used(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err == nil && !d.IsDir() && unix.Stat(path, &stat) == nil {
			bytes += stat.Blocks * 512
		}
		return nil
	})
	return bytes
}

// dropCaches makes the system forget what it has cached of the files in dir.
func dropCaches(dir string) error {
	unix.Sync()
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// readAll reads the segments in dir one after the other for a time, and returns how many
// bytes a second that were.
func readAll(dir string, length time.Duration) (float64, error) {
	buf := make([]byte, 1<<20)
	begun, bytes := time.Now(), 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".seg" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		for time.Since(begun) < length {
			n, err := f.Read(buf)
			bytes += n
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
		return fs.SkipAll
	})
	return float64(bytes) / time.Since(begun).Seconds(), err
}
