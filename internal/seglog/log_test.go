package seglog_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// A log survives closing and opening: its records stand there again, and new ones come
// after them.
func TestReopen(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log"); err != nil {
		t.Fatal(err)
	}
	want := 0
	for round := range 3 {
		c := seglog.NewCommitter(seglog.SyncAlways, nil)
		l, err := seglog.Open(seglog.Options{
			FS: fs, Dir: "log", Committer: c, Tail: seglog.NewTail(1 << 20), SegmentSize: 4096,
			OnDamage: func(d seglog.Damage) { t.Error(d) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			tk, err := l.Append(int64(round), 3, func(i int) seglog.Entry {
				return seglog.Entry{Headers: []byte("h"), Body: fmt.Appendf(nil, "message %d", want+i)}
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Commit(tk); err != nil {
				t.Fatal(err)
			}
			want += 3
		}
		r := l.NewReader(1)
		got := 0
		dst := make([]seglog.Record, 7)
		for {
			n, err := r.Read(dst)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			for _, rec := range dst[:n] {
				if s := fmt.Sprintf("message %d", got); string(rec.Body) != s || string(rec.Headers) != "h" {
					t.Fatalf("got %q, want %q", rec.Body, s)
				}
				got++
			}
		}
		r.Close()
		if got != want {
			t.Fatalf("round %d: read %d records, want %d", round, got, want)
		}
		if n := l.Count(1, l.End()); n != int64(want) {
			t.Fatalf("Count = %d, want %d", n, want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
