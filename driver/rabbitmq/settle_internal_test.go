package rabbitmq

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

// server is what RabbitMQ does with one channel: deliveries are numbered as they are sent, but the
// consumers hear of them one by one.
type server struct {
	sent        uint64
	transit     [2][]uint64     // by consumer
	outstanding map[uint64]bool // whether it was acked here and may be acked there
}

// settle does what the driver says, and complains when it was decided otherwise.
func (s *server) settle(t *rapid.T, list []settlement, decided map[uint64]settling) {
	for _, what := range list {
		tags := []uint64{what.tag}
		if what.what == ackUpTo {
			tags = tags[:0]
			for tag := range s.outstanding {
				if tag <= what.tag {
					tags = append(tags, tag)
				}
			}
		}
		for _, tag := range tags {
			if !s.outstanding[tag] {
				t.Fatalf("%d is settled twice, which ends the channel", tag)
			}
			as, known := decided[tag]
			if !known || (as == ackOne) != (what.what != requeue) {
				t.Fatalf("%d is settled as %d with %+v, but was decided to be %d (%v)", tag, what.what, what, as, known)
			}
			delete(s.outstanding, tag)
		}
	}
}

// However deliveries come, and in whatever order they are settled, the server is told of each what was
// decided, once: an ack for many never covers one that is held, was given back, or is still on its way.
func TestTheServerIsToldWhatWasDecided(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		srv := server{outstanding: map[uint64]bool{}}
		c := &consuming{}
		consumers := []*consumer{{}, {}}
		s := &subscription{c: c, target: 1, lease: time.Hour, retune: make(chan struct{}, 1)}
		decided := map[uint64]settling{}
		tags := map[uint64]uint64{} // AMQP's, by the driver's
		var out []millrace.Delivery

		arrive := func(i int) {
			tag := srv.transit[i][0]
			srv.transit[i] = srv.transit[i][1:]
			c.come.note(tag)
			h := s.held.fresh()
			h.tag, h.from = tag, consumers[i]
			consumers[i].outstanding++
			s.held.add(h)
			tags[h.d.Tag] = tag
			buf := make([]millrace.Delivery, 1)
			if n := s.held.hand(buf, time.Now().Add(time.Hour)); n == 1 {
				out = append(out, buf[0])
			}
		}
		settle := func(n int, what settling) {
			ds := slices.Clone(out[:n])
			out = slices.Delete(out, 0, n)
			if len(ds) > 1 {
				ds = append(ds, ds[0]) // twice in one call
			}
			hs, lost := s.held.find(ds, time.Now())
			if len(hs) != n || len(lost) != len(ds)-n {
				t.Fatalf("of %d deliveries %d were found, %v lost", n, len(hs), lost)
			}
			for _, h := range hs {
				decided[h.tag] = what
				s.held.remove(h)
			}
			if what == requeue {
				s.nackAll(hs)
			} else {
				s.ackAll(hs)
			}
			s.held.free(hs)
		}
		flush := func() {
			srv.settle(t, s.settles.list, decided)
			s.settles.list = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					srv.sent++
					i := rapid.IntRange(0, 1).Draw(t, "consumer")
					srv.transit[i] = append(srv.transit[i], srv.sent)
					srv.outstanding[srv.sent] = true
				}
			},
			"arrive": func(t *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(t, "consumer")
				for range rapid.IntRange(0, len(srv.transit[i])).Draw(t, "n") {
					arrive(i)
				}
			},
			"ack": func(t *rapid.T) {
				out = rapid.Permutation(out).Draw(t, "order")
				settle(rapid.IntRange(0, len(out)).Draw(t, "n"), ackOne)
			},
			"ack the first": func(t *rapid.T) {
				settle(rapid.IntRange(0, len(out)).Draw(t, "n"), ackOne)
			},
			"nack": func(t *rapid.T) {
				settle(rapid.IntRange(0, min(3, len(out))).Draw(t, "n"), requeue)
			},
			"flush": func(*rapid.T) { flush() },
		})
		for i := range srv.transit {
			for len(srv.transit[i]) > 0 {
				arrive(i)
			}
		}
		settle(len(out), ackOne)
		flush()
		if len(srv.outstanding) > 0 || len(s.held.all) > 0 || consumers[0].outstanding+consumers[1].outstanding != 0 {
			t.Fatalf("%d are never settled, %d are held", len(srv.outstanding), len(s.held.all))
		}
	})
}

// A lease that has ended is lost from that moment, not from when it is given back.
func TestALeaseEndsAtItsTime(t *testing.T) {
	var hs holdings
	for range 2 {
		h := hs.fresh()
		h.from = &consumer{}
		hs.add(h)
	}
	start := time.Now()
	ds := make([]millrace.Delivery, 2)
	hs.hand(ds[:1], start.Add(time.Second))
	hs.hand(ds[1:], start.Add(2*time.Second))
	if found, lost := hs.find(ds, start.Add(time.Second)); len(found) != 1 || !slices.Equal(lost, []int{0}) {
		t.Errorf("after a second %d are held, %v lost", len(found), lost)
	}
	if expired := hs.takeExpired(start.Add(999 * time.Millisecond)); len(expired) != 0 {
		t.Error("one is given back too early")
	}
	if expired := hs.takeExpired(start.Add(time.Second)); len(expired) != 1 || expired[0].d.Tag != ds[0].Tag {
		t.Errorf("%d are given back after a second", len(expired))
	}
	if expired := hs.takeExpired(start.Add(2 * time.Second)); len(expired) != 1 || len(hs.all) != 0 {
		t.Errorf("%d more are given back after two", len(expired))
	}
}

// What is late from one consumer is handed out in the server's order.
func TestDeliveriesOfSeveralConsumersAreInOrder(t *testing.T) {
	var hs holdings
	for _, tag := range []uint64{2, 4, 1, 5, 3} {
		h := hs.fresh()
		h.tag, h.from = tag, &consumer{}
		h.d.Seq = tag
		hs.add(h)
	}
	buf := make([]millrace.Delivery, 5)
	for i := range hs.hand(buf, time.Now()) {
		if buf[i].Seq != uint64(i+1) { //nolint:gosec // an index
			t.Fatalf("number %d comes as %d", buf[i].Seq, i+1)
		}
	}
}
