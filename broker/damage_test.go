package broker_test

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// reports is a slog.Handler that keeps what is told of damage: the files' names.
type reports struct {
	mu    sync.Mutex
	files []string
}

func (r *reports) Enabled(context.Context, slog.Level) bool { return true }
func (r *reports) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *reports) WithGroup(string) slog.Handler            { return r }

func (r *reports) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if record.Message == "damage on disk" && a.Key == "file" {
			r.mu.Lock()
			r.files = append(r.files, a.Value.String())
			r.mu.Unlock()
		}
		return true
	})
	return nil
}

// smallDirectory is a data directory with everything in it, closed or torn from life.
func smallDirectory(t *testing.T, closed bool) *vfs.Mem {
	disk := vfs.NewMem()
	b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(400))
	b.publish("t", "a", "b", "c")
	one := b.subscribe("t", "one", millrace.SubscribeOptions{})
	ds := receive(t, one, 3)
	ack(t, one, ds[0], ds[2])
	two := b.subscribe("t", "two", millrace.SubscribeOptions{})
	b.publish("t", "d", "e", "f", "g")
	ds = receive(t, two, 4)
	ack(t, two, ds[1])
	if err := two.Nack(t.Context(), deferral, ds[2]); err != nil {
		t.Fatal(err)
	}
	b.subscribe("t", "idle", millrace.SubscribeOptions{}) // nothing but a snapshot
	b.publish("u", "x")
	b.subscribe("u", "gone", millrace.SubscribeOptions{})
	if err := b.DeleteChannel("u", "gone"); err != nil {
		t.Fatal(err)
	}
	b.publish("u", "y")
	time.Sleep(time.Second)
	if closed {
		_ = b.Close()
	}
	return disk.Crash()
}

func listFiles(t *testing.T, disk *vfs.Mem, dir string) []string {
	names, err := disk.List(dir)
	if errors.Is(err, syscall.ENOTDIR) {
		return []string{dir}
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		all = append(all, listFiles(t, disk, path.Join(dir, name))...)
	}
	return all
}

// Any bit of any file flips: the broker opens, says which file is damaged, and delivers
// everything but what the bit hit.
func TestAFlippedBitIsReportedAndCostsAtMostOneMessage(t *testing.T) {
	step := int64(1)
	if underRace() { // which makes it fifteen times as slow
		step = 11
	}
	for _, closed := range []bool{true, false} {
		var disk *vfs.Mem
		var files []string
		synctest.Test(t, func(t *testing.T) {
			disk = smallDirectory(t, closed)
			files = listFiles(t, disk, "data")
		})
		for _, file := range files {
			synctest.Test(t, func(t *testing.T) {
				f, err := disk.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				size, _ := f.Size()
				_ = f.Close()
				for bit := int64(0); bit < size*8; bit += step {
					damaged := disk.Crash()
					damaged.FlipBit(file, bit)
					if flipped(t, damaged, file); t.Failed() {
						t.Fatalf("bit %d of %d of %s; closed before: %t", bit, size*8, file, closed)
					}
				}
			})
		}
	}
}

func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func flipped(t *testing.T, disk *vfs.Mem, file string) {
	told := &reports{}
	b, err := broker.Open(broker.Options{Dir: "data", Logger: slog.New(told)}.On(disk).WithSegments(400))
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	lost := 0
	for _, c := range []struct{ topic, channel, may, must string }{
		{"t", "one", "a b c d e f g", "b d e f g"},
		{"t", "two", "d e f g", "d f g"},
		{"t", "idle", "", ""},
		{"u", "probe", "x y", "y"},
	} {
		got := drain(t, b, c.topic, c.channel)
		if c.channel == "two" && !slices.Contains(got, "f") {
			time.Sleep(2 * deferral)
			got = append(got, drain(t, b, c.topic, c.channel)...)
		}
		for _, body := range got {
			if !slices.Contains(strings.Fields(c.may), body) {
				t.Errorf("channel %s delivers %q", c.channel, body)
			}
		}
		missing := slices.DeleteFunc(strings.Fields(c.must), func(body string) bool { return slices.Contains(got, body) })
		lost = max(lost, len(missing))
		if d, err := b.Depth(c.topic, c.channel); err != nil || d != (millrace.Depth{}) {
			t.Errorf("channel %s has %+v (%v) left, which nobody gets", c.channel, d, err)
		}
	}
	if lost > 1 || lost > 0 && !strings.HasSuffix(file, ".seg") {
		t.Errorf("%d messages are lost", lost)
	}
	if !slices.Contains(told.files, file) {
		t.Errorf("damage was reported in %v", told.files)
	}
}
