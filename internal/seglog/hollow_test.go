package seglog_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// A segment that a full disk has ended gives its space back without a successor, which
// could not be made; numbers go on above it, also after the log is opened again.
func TestTheSpaceOfTheLastSegmentComesBackOnAFullDisk(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("log"); err != nil {
		t.Fatal(err)
	}
	open := func() (*seglog.Log, func()) {
		c := seglog.NewCommitter(seglog.SyncAlways, nil)
		l, err := seglog.Open(seglog.Options{
			FS: disk, Dir: "log", Committer: c, Tail: seglog.NewTail(1 << 20),
			OnDamage: func(d seglog.Damage) { t.Error(d) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return l, func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	l, end := open()
	put := func() (seglog.Ticket, error) {
		ticket, err := l.Append(1, 1, func(int) seglog.Entry { return seglog.Entry{Body: make([]byte, 4000)} })
		if err == nil {
			err = l.Commit(ticket)
		}
		return ticket, err
	}
	if _, ok := l.Ended(); ok {
		t.Error("a log without records has ended")
	}
	disk.SetFree(100_000)
	var last uint64
	var err error
	for err == nil {
		var ticket seglog.Ticket
		if ticket, err = put(); err == nil {
			last = ticket.First
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if len(l.Sealed()) != 0 {
		t.Error("there is a segment that could be removed: this test shows nothing")
	}
	info, ok := l.Ended()
	if !ok || info.Next != last+1 {
		t.Fatalf("ended: %+v, %v; want all up to %d", info, ok, last)
	}
	if err := l.Hollow(info.Base); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Ended(); ok || l.Size() != 0 {
		t.Errorf("it still holds %d bytes", l.Size())
	}
	for range 10 {
		ticket, err := put()
		if err != nil || ticket.First <= last {
			t.Fatalf("number %d after %d: %v", ticket.First, last, err)
		}
		last = ticket.First
	}
	end()
	l, end = open()
	if n := l.Count(1, l.End()); n != 10 {
		t.Errorf("%d records after it was opened again, want 10", n)
	}
	if ticket, err := put(); err != nil || ticket.First <= last {
		t.Errorf("number %d after %d: %v", ticket.First, last, err)
	}
	end()
}
