package broker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

func TestAChannelCountsWhatBecomesOfItsMessages(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", "a", "b") // the first channel gets them
		first := time.Now()
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: 5 * time.Second})
		b.publish("t", "c", "d", "e")
		time.Sleep(time.Second)
		ds := receive(t, c, 4)
		ack(t, c, ds[1])
		b.must(c.Nack(t.Context(), time.Hour, ds[2]))
		ch := b.channel("t", "c")
		want := broker.ChannelStats{
			Ready: 1, InFlight: 2, Deferred: 1,
			Messages: 5, Finished: 1, Requeued: 1, Consumers: 1,
		}
		s := ch.Stats()
		if !s.Oldest.Equal(first) {
			t.Errorf("the oldest is of %v, not of %v", s.Oldest, first)
		}
		s.Oldest = time.Time{}
		if s != want {
			t.Errorf("%+v, want %+v", s, want)
		}
		ack(t, c, ds[0])
		time.Sleep(10 * time.Second)
		s = ch.Stats()
		if s.TimedOut != 1 || s.Ready != 2 || s.Finished != 2 {
			t.Errorf("%+v", s)
		}
		b.must(ch.Empty())
		if s := ch.Stats(); !s.Oldest.IsZero() || s.Messages != 5 {
			t.Errorf("%+v", s)
		}
		late := b.channel("t", "late")
		b.publish("t", "f")
		if s := late.Stats(); s.Messages != 1 {
			t.Errorf("%+v", s)
		}
		if s := ch.Stats(); s.Messages != 6 {
			t.Errorf("%+v", s)
		}
	})
}

func TestABrokerCountsItsCommits(t *testing.T) {
	b := open(t, broker.Options{Dir: t.TempDir()})
	b.publish("t", "a")
	one := b.Stats()
	if one.Commits == 0 || one.CommitBytes == 0 || one.Syncs == 0 || one.SyncTime <= 0 || one.Damaged != 0 {
		t.Errorf("%+v", one)
	}
	b.publish("t", "b")
	two := b.Stats()
	if two.Commits != one.Commits+1 || two.CommitBytes != 2*one.CommitBytes || two.Syncs != one.Syncs+1 {
		t.Errorf("%+v after %+v", two, one)
	}
}

func TestChangesAreAnnounced(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		for _, change := range []struct {
			name string
			make func()
			want bool
		}{
			{"a new topic", func() { b.publish("t", "a") }, true},
			{"an old topic", func() { b.publish("t", "a") }, false},
			{"a new channel", func() { b.channel("t", "c") }, true},
			{"an old channel", func() { b.channel("t", "c") }, false},
			{"a channel less", func() { b.must(b.DeleteChannel("t", "c")) }, true},
			{"a topic less", func() { b.must(b.DeleteTopic("t")) }, true},
		} {
			changed := b.Changed()
			change.make()
			select {
			case <-changed:
				if !change.want {
					t.Error(change.name, "was announced")
				}
			default:
				if change.want {
					t.Error(change.name, "was not announced")
				}
			}
		}
	})
}

func TestHealthTellsOfAFullDiskAndRecoversByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.publish("t", "a")
		b.must(b.Health())
		disk.SetFree(100)
		b.must(b.Health()) // nobody has met it, and it was looked at just now
		if err := b.Publish("t", messages(string(make([]byte, 1000)))); !errors.Is(err, millrace.ErrNoSpace) {
			t.Fatal(err)
		}
		for range 3 {
			if err := b.Health(); !errors.Is(err, millrace.ErrNoSpace) {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
		}
		disk.SetFree(1 << 20)
		b.must(b.Health()) // although nobody publishes
		time.Sleep(2 * time.Second)
		disk.SetFree(100)
		if err := b.Health(); !errors.Is(err, millrace.ErrNoSpace) { // before anybody has met it
			t.Error(err)
		}
		b.must(b.Close())
		if err := b.Health(); !errors.Is(err, millrace.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestHealthTellsOfFullMemory(t *testing.T) {
	b := open(t, broker.Options{MaxMemory: 100_000})
	b.must(b.Health())
	for b.Publish("t", messages("0123456789")) == nil {
	}
	if err := b.Health(); !errors.Is(err, millrace.ErrNoSpace) {
		t.Error(err)
	}
	b.must(b.DeleteTopic("t"))
	b.must(b.Health())
}
