package seglog_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// lastByte says where in memory the log keeps its last record.
func lastByte(t *testing.T, o *opened) weak.Pointer[byte] {
	t.Helper()
	r := o.NewReader(o.End() - 1)
	defer r.Close()
	var one [1]seglog.Record
	if n, err := r.Read(one[:]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return weak.Make(&one[0].Body[0])
}

func TestMemoryIsFreed(t *testing.T) {
	record := strings.Repeat("x", 30_000)
	for _, c := range []struct {
		name string
		fs   vfs.FS
		free func(o *opened)
	}{
		{"of a removed segment", nil, func(o *opened) { must(t, o.Remove(o.Sealed()[0].Base)) }},
		{"of a log in memory that is closed", nil, func(o *opened) { must(t, o.Close()) }},
		{"of what the tail has no room for", newDisk(t), func(*opened) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := mustOpen(t, c.fs, seglog.SyncNever, func(opts *seglog.Options) {
				opts.SegmentSize, opts.Tail = 10<<20, seglog.NewTail(256<<10)
				if c.fs == nil {
					opts.SegmentSize = 100_000
				}
			})
			o.add(t, record)
			p := lastByte(t, o)
			for range 20 {
				o.add(t, record)
			}
			second := lastByte(t, o)
			o.add(t, slices.Repeat([]string{record}, 20)...)
			runtime.GC()
			if c.fs == nil && p.Value() == nil {
				t.Fatal("it is gone although nobody has asked for that")
			}
			c.free(o)
			runtime.GC()
			if p.Value() != nil || c.fs != nil && second.Value() != nil {
				t.Error("it is still there")
			}
			runtime.KeepAlive(o)
		})
	}
}
