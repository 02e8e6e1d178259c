package nats

import (
	"context"
	"fmt"
	"strconv"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

const (
	// A request for messages is good for so long at most, and a server that still has it says
	// so in between (NATS ADR-13).
	pullExpires   = 30 * time.Second
	pullHeartbeat = 2 * time.Second
	// silentFor is after how long without a word the server is thought to have lost it.
	silentFor = 5 * time.Second
	// lookEvery is how often a subscription makes sure of its channel anyway.
	lookEvery = 10 * time.Second
	// missesUntilGone is how often a channel must be missing until it is believed to have
	// been deleted while there was no connection.
	missesUntilGone = 3
	// overFor is how long more may be ready than may be held, before it is given back.
	overFor = 200 * time.Millisecond
)

// pull is what a subscription knows of its requests. The subscription's mu guards it.
type pull struct {
	inbox *inbox // nil when there is none, as while it is paused
	// asked is how many messages were asked for through the inbox and have not come. The
	// server may send them at any time.
	asked   int
	heard   time.Time     // when something came through the inbox last
	broken  bool          // what was asked for is lost, or may be
	looked  time.Time     // when the channel was looked at last
	misses  int           // how often in a row it was not there
	tries   int           // how often in a row looking has failed
	ackWait time.Duration // of the channel; 0 while that is not known
	notices int           // that the channel has got another one
	alive   time.Time     // when stayAlive said so last
	over    time.Time     // since when more is ready than may be held; zero when not
}

// inbox is a subject through which messages come.
type inbox struct {
	subject string
	sub     *natsio.Subscription
}

// shut says to the server that nothing more is to come through an inbox. What is on its
// way is still taken.
func (in *inbox) shut() { _ = in.sub.Drain() } // without a connection nothing is on its way

// settled waits for a moment until everything that the server has sent has been handled.
func (l *link) settled() {
	if !l.flush() {
		return
	}
	done := make(chan struct{})
	if l.nc.Barrier(func() { close(done) }) != nil {
		return
	}
	select {
	case <-done:
	case <-time.After(lastPause):
	}
}

// room is how many messages more may be asked for. The caller holds mu.
func (s *subscription) room() int { return s.prefetch - s.leases.held - s.pull.asked }

// hungry says that the keeper should ask for messages: when it is worth while, or when
// somebody waits and nothing has been asked for. The caller holds mu.
func (s *subscription) hungry() bool {
	room := s.room()
	return room > 0 && (room >= s.prefetch/4 || s.pull.asked == 0 && s.waiting > 0)
}

// greedy says that more was asked for, or has come, than may be held. The caller holds mu.
func (s *subscription) greedy() bool { return s.room() < 0 && s.pull.asked+s.ready.len() > 0 }

// disturbed says that what was asked for is lost.
func (s *subscription) disturbed() {
	s.mu.Lock()
	s.pull.broken = true
	s.mu.Unlock()
	signal(s.kicked)
}

// start starts the keeper.
func (s *subscription) start() {
	s.mu.Lock()
	now := time.Now()
	s.pull.heard, s.pull.looked = now, now
	s.mu.Unlock()
	signal(s.kicked)
	s.keeper.Go(s.keep)
}

// keep is the keeper. It works when it is kicked, and looks after leases from time to
// time.
func (s *subscription) keep() {
	ticker := time.NewTicker(min(max(s.lease/8, 10*time.Millisecond), time.Second))
	defer ticker.Stop()
	for {
		s.work(time.Now())
		select {
		case <-s.ctx.Done():
			return
		case <-s.kicked:
		case <-ticker.C:
		}
	}
}

// work does what there is to do.
func (s *subscription) work(now time.Time) {
	old, look := s.review(now)
	if old != nil {
		old.shut()
	}
	s.tellAll(s.surplus(now), nakWord)
	if !s.link.isUp() {
		return // disturbed comes with the next connection
	}
	if look && !s.look(now) {
		return
	}
	if s.wantsInbox() && !s.openInbox() {
		return
	}
	s.ask()
	s.stayAlive(now)
}

// review takes out leases that are over, takes away an inbox that is of no use any more,
// and says whether the channel must be looked at.
func (s *subscription) review(now time.Time) (old *inbox, look bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pull
	s.leases.expire(now)
	s.offer()
	if p.inbox != nil && now.Sub(p.heard) > silentFor && p.asked > 0 {
		p.broken = true
	}
	if p.broken || p.asked > 0 && s.room() < 0 {
		old, p.inbox, p.asked = p.inbox, nil, 0
	}
	return old, p.broken || now.Sub(p.looked) > lookEvery
}

// surplus takes out what is ready beyond what may be held, because it was asked for when
// that was more: at once when the subscription is paused, else when it is not taken or
// allowed again soon. What came last goes first.
func (s *subscription) surplus(now time.Time) (acks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(s.leases.held-s.prefetch, s.ready.len())
	switch over := s.pull.over; {
	case n <= 0:
		s.pull.over = time.Time{}
		return nil
	case s.prefetch > 0 && over.IsZero():
		s.pull.over = now
		time.AfterFunc(overFor, func() { signal(s.kicked) })
		return nil
	case s.prefetch > 0 && now.Sub(over) < overFor:
		return nil
	}
	s.pull.over = time.Time{}
	for range n {
		if ack, ok := s.leases.remove(s.ready.unpush().Tag, now); ok {
			acks = append(acks, ack)
		}
	}
	return acks
}

// look makes sure that the channel is there, and that there is somebody to ask. Returns
// false when not; then it is tried again.
func (s *subscription) look(now time.Time) bool {
	s.mu.Lock()
	tries, notices := s.pull.tries, s.pull.notices
	s.mu.Unlock()
	if tries > 0 && !s.rest(tries) {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	info, err := s.broker.look(ctx, s.topic, s.channel)
	gone := isNotFound(err)
	if gone && millrace.Ephemeral(s.channel) {
		// It has not outlived the time without us, and is what it was when it is new.
		if err = s.broker.channel(ctx, s.topic, s.channel, s.lease); err == nil {
			info, err = s.broker.look(ctx, s.topic, s.channel)
		}
		gone = false
	}
	if err != nil {
		s.unseen(gone)
		return false
	}
	if s.seen(info.Config.AckWait, notices, now) {
		s.unsettled(now)
	}
	return true
}

// unseen notes that the channel could not be looked at, or is not there.
func (s *subscription) unseen(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pull
	p.broken = true
	p.tries++
	if gone {
		p.misses++
	}
	if p.misses >= missesUntilGone {
		if s.end == nil {
			s.end = s.deleted()
		}
		s.stop()
	}
	signal(s.kicked)
}

// seen notes that the channel is there, and its lease, unless there was a notice meanwhile.
// Returns whether it has become another one without a notice, as while there was no
// connection.
func (s *subscription) seen(ackWait time.Duration, notices int, now time.Time) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pull
	p.looked, p.heard = now, now
	p.broken, p.misses, p.tries = false, 0, 0
	if notices != p.notices {
		p.looked = time.Time{} // for what we have seen may be of before
		signal(s.kicked)
		return false
	}
	changed = p.ackWait != 0 && p.ackWait != ackWait
	p.ackWait = ackWait
	return changed
}

// unsettled says that the channel has got another lease. The subscription's deliveries are
// to have theirs all the same, and the server is told so for each of them.
func (s *subscription) unsettled(now time.Time) {
	s.mu.Lock()
	s.pull.ackWait, s.pull.looked = 0, time.Time{}
	s.pull.notices++
	rests := s.leases.rests(now)
	s.mu.Unlock()
	for ack, rest := range rests {
		s.link.send(ack, "", nakAfter(rest))
	}
	signal(s.kicked)
}

func (s *subscription) deleted() error {
	return fmt.Errorf("%w: channel %s of topic %s was deleted", millrace.ErrClosed, s.channel, s.topic)
}

// rest waits after so many failures. Returns false when the subscription ends.
func (s *subscription) rest(tries int) bool {
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(pause(tries)):
		return true
	}
}

func (s *subscription) wantsInbox() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pull.inbox == nil && s.prefetch > 0
}

// openInbox makes a new inbox. Returns false when it cannot, for want of a connection.
func (s *subscription) openInbox() bool {
	in := &inbox{subject: s.link.nc.NewInbox()}
	sub, err := s.link.nc.Subscribe(in.subject, func(m *natsio.Msg) { s.came(in, m) })
	if err != nil {
		return false
	}
	in.sub = sub
	_ = sub.SetPendingLimits(-1, -1) // there are as many as we ask for
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pull
	p.inbox, p.asked, p.heard = in, 0, time.Now()
	// While we asked for nothing, somebody may have settled on another lease for the
	// channel. He does not any more once we have asked, so that is when to look.
	p.ackWait, p.looked = 0, time.Time{}
	signal(s.kicked)
	return true
}

// ask asks for as many messages as there is room for.
func (s *subscription) ask() {
	s.mu.Lock()
	in, n := s.pull.inbox, s.room()
	if in == nil || !s.hungry() {
		s.mu.Unlock()
		return
	}
	if s.pull.asked == 0 {
		s.pull.heard = time.Now() // until now there was nothing to be heard
	}
	s.pull.asked += n
	s.mu.Unlock()
	s.link.send(s.next(), in.subject, request(n, s.lease))
}

// next is the subject of requests for messages.
func (s *subscription) next() string {
	return "$JS.API.CONSUMER.MSG.NEXT." + Stream(s.topic) + "." + Consumer(s.channel)
}

// request is one for n messages. It is over before a lease is that was extended at any
// time in the last half of it: else a process that hangs would get its own messages again when
// their leases end, and keep them for a second one.
func request(n int, lease time.Duration) []byte {
	expires := min(pullExpires, lease/2)
	heartbeat := min(pullHeartbeat, expires/3) // the server wants it below half
	buf := strconv.AppendInt([]byte(`{"batch":`), int64(n), 10)
	buf = strconv.AppendInt(append(buf, `,"expires":`...), int64(expires), 10)
	buf = strconv.AppendInt(append(buf, `,"idle_heartbeat":`...), int64(heartbeat), 10)
	return append(buf, '}')
}

// came is called with what comes through an inbox, one after the other.
func (s *subscription) came(in *inbox, m *natsio.Msg) {
	now := time.Now()
	a, ok := unwrap(m, now)
	if !ok {
		s.status(in, m, now)
		return
	}
	s.arrives(in, now)
	word, done := s.accept(&a, m.Reply, false, now)
	if word != nil {
		s.link.send(m.Reply, "", word)
	}
	if !done {
		// The server has been told how long it is ours, before whoever receives it can say
		// anything else of it: what is said last holds.
		if word, _ = s.accept(&a, m.Reply, true, now); word != nil {
			s.link.send(m.Reply, "", word)
		}
	}
}

// arrives notes that one of the messages that were asked for has come.
func (s *subscription) arrives(in *inbox, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in == s.pull.inbox {
		s.pull.asked = max(0, s.pull.asked-1)
		s.pull.heard = now
	}
}

// accept takes a message in, unless the server must be told something first: then it is
// not done. told says that it was told how long the lease is.
func (s *subscription) accept(a *arrival, ack string, told bool, now time.Time) (word []byte, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case a.early > 0:
		if s.hungry() {
			signal(s.kicked)
		}
		return nakAfter(a.early), true
	case s.end != nil || s.prefetch == 0:
		return nakWord, true // it was on its way
	case s.pull.ackWait != s.lease && !told:
		return nakAfter(s.lease), false
	}
	a.Tag = s.leases.add(ack, now)
	s.ready.push(a.Delivery)
	s.offer()
	if s.leases.held > s.prefetch {
		signal(s.kicked)
	}
	return nil, true
}

// status handles what the server says about a request.
func (s *subscription) status(in *inbox, m *natsio.Msg, now time.Time) {
	code, _ := first(m.Header, "Status")
	description, _ := first(m.Header, "Description")
	if code == "409" && description == "Consumer Deleted" {
		s.finish(s.deleted())
		return
	}
	s.mu.Lock()
	p := &s.pull
	if in != p.inbox {
		s.mu.Unlock()
		return
	}
	p.heard = now
	switch code {
	case "100": // the request is still there
	case "404", "408": // it is over, and so many messages have not come
		left, err := strconv.Atoi(firstOr(m.Header, "Nats-Pending-Messages", "-"))
		if err != nil {
			left = p.asked
		}
		p.asked = max(0, p.asked-left)
	default: // no leader, another leader, a server that goes
		p.broken = true
		p.tries = max(p.tries, 1)
	}
	s.mu.Unlock()
	if code != "100" {
		signal(s.kicked)
	}
}

func firstOr(h natsio.Header, key, otherwise string) string {
	if value, ok := first(h, key); ok {
		return value
	}
	return otherwise
}
