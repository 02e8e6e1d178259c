package nsq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// minLease is the shortest msg_timeout that NSQ takes.
const minLease = time.Second

// errDeleted is why a subscription ends whose channel is deleted.
var errDeleted = fmt.Errorf("%w: the channel was deleted", millrace.ErrClosed)

// subscription is one consumer of a channel, on every node that has it. Each node has a
// source, whose goroutine keeps a connection and reads messages.
type subscription struct {
	broker         *Broker
	topic, channel string
	lease          time.Duration

	ctx    context.Context // of the sources; ends when the subscription does
	cancel context.CancelFunc
	over   chan struct{} // closed when why is set
	ending sync.Once
	keeper keeper

	routines sync.WaitGroup
	arrived  chan struct{} // has room for one: there may be something in ready

	mu       sync.Mutex // guards what follows, and what sources say it does; never held while waiting
	prefetch int
	sources  []*source
	ready    queue
	leases   leases
	why      error // that it has ended for
	unsure   error // why a node may not have heard the last acks
}

// Subscribe starts to consume from a channel of every node, which creates it. It waits
// until every node was tried, and one is there.
func (b *Broker) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	if err := b.may(ctx, topic, channel); err != nil {
		return nil, err
	}
	opts = opts.WithDefaults()
	s := &subscription{
		broker: b, topic: topic, channel: channel, lease: max(opts.Lease, minLease), prefetch: opts.Prefetch,
		over: make(chan struct{}), arrived: make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.keeper = newKeeper(s)
	b.mu.Lock()
	if b.ctx.Err() != nil {
		b.mu.Unlock()
		return nil, fmt.Errorf("nsq: %w", millrace.ErrClosed)
	}
	if b.subs == nil {
		b.subs = make(map[*subscription]struct{})
	}
	b.subs[s] = struct{}{}
	nodes := b.nodes
	b.mu.Unlock()
	s.routines.Go(s.keeper.run)
	for _, n := range nodes {
		s.addSource(n)
	}
	if err := s.anySource(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("nsq: subscribe to %s/%s: %w", topic, channel, err)
	}
	return s, nil
}

// anySource waits until every source was tried, and one of them has messages to come.
func (s *subscription) anySource(ctx context.Context) error {
	for {
		_, change := s.broker.all()
		s.mu.Lock()
		up, tried, all, why := 0, 0, len(s.sources), error(nil)
		for _, src := range s.sources {
			if src.conn != nil {
				up++
			}
			if src.conn != nil || src.why != nil {
				tried++
			}
			if errors.As(src.why, new(*refusal)) {
				why = src.why
			}
		}
		ended := s.why
		s.mu.Unlock()
		switch {
		case ended != nil:
			return ended
		case tried == all && up > 0:
			return nil
		case tried == all && why != nil:
			return why
		}
		select {
		case <-change:
		case <-s.over:
		case <-ctx.Done():
			return s.broker.waited(ctx)
		}
	}
}

// Receive waits until there is at least one delivery whose lease has not ended, and fills
// buf with those that are there.
func (s *subscription) Receive(ctx context.Context, buf []millrace.Delivery) (int, error) {
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := s.take(buf)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-s.arrived:
		case <-s.over:
		case <-ctx.Done():
		}
	}
}

func (s *subscription) take(buf []millrace.Delivery) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return 0, fmt.Errorf("nsq: receive from %s/%s: %w", s.topic, s.channel, s.why)
	}
	now := s.keeper.now()
	for n < len(buf) && s.ready.len() > 0 {
		if d := s.ready.pop(); s.leases.alive(d.Tag, now) != nil {
			buf[n] = d
			n++
		}
	}
	if s.ready.len() > 0 {
		s.wake() // others
	}
	return n, nil
}

// wake tells one of those who receive that there is something.
func (s *subscription) wake() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// Ack tells the nodes that the messages were handled.
func (s *subscription) Ack(_ context.Context, ds ...millrace.Delivery) error {
	return s.settle(ds, func(l *lease, _ int64) {
		l.from.command("FIN ", l.id)
		s.leases.free(l)
	})
}

// Nack gives the messages back.
func (s *subscription) Nack(_ context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	ms := int64(max(delay, 0)+time.Millisecond-1) / int64(time.Millisecond)
	return s.settle(ds, func(l *lease, _ int64) {
		l.from.giveBack(l.id, ms)
		s.leases.free(l)
	})
}

// Extend begins the leases anew.
func (s *subscription) Extend(_ context.Context, ds ...millrace.Delivery) error {
	return s.settle(ds, func(l *lease, now int64) {
		l.from.command("TOUCH ", l.id)
		l.until = min(now+int64(s.lease), l.most)
	})
}

// settle does something with the leases of deliveries, and sends what that has made. The
// error tells which of them had ended.
func (s *subscription) settle(ds []millrace.Delivery, do func(l *lease, now int64)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return fmt.Errorf("nsq: %s/%s: %w", s.topic, s.channel, s.why)
	}
	now := s.keeper.now()
	var lost []int
	for i := range ds {
		if l := s.leases.alive(ds[i].Tag, now); l != nil {
			do(l, now)
		} else {
			lost = append(lost, i)
		}
	}
	for _, src := range s.sources {
		src.flush()
	}
	s.keeper.freed()
	if lost != nil {
		return &millrace.LeaseError{Lost: lost}
	}
	return nil
}

// SetPrefetch changes how much the nodes may send. With 0 what has come and was not
// received is given back.
func (s *subscription) SetPrefetch(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prefetch = max(n, 0); s.why != nil {
		return
	}
	s.keeper.share()
	if s.prefetch == 0 {
		s.giveBackReady()
	}
}

// giveBackReady gives back what was not received. The caller holds mu.
func (s *subscription) giveBackReady() {
	now := s.keeper.now()
	for s.ready.len() > 0 {
		if l := s.leases.alive(s.ready.pop().Tag, now); l != nil {
			l.from.giveBack(l.id, 0)
			s.leases.free(l)
		}
	}
	for _, src := range s.sources {
		src.flush()
	}
}

// Close gives back what is held, and ends the subscription. It returns an error when a node
// hangs, so that nobody knows whether it has heard the last acks.
func (s *subscription) Close() error {
	if !s.end(millrace.ErrClosed) {
		return fmt.Errorf("nsq: %s/%s: %w", s.topic, s.channel, millrace.ErrClosed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsure
}

// unheard notes that a node does not say goodbye.
func (s *subscription) unheard(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsure = fmt.Errorf("nsq: %s/%s: the broker at %s does not answer: what was acked last may be delivered again", s.topic, s.channel, n.at.tcp)
}

// end ends the subscription, for that reason unless it has another, and waits until all its
// goroutines have ended. It returns false when that was done before.
func (s *subscription) end(why error) (first bool) {
	s.mu.Lock()
	s.stop(why)
	s.mu.Unlock()
	s.ending.Do(func() {
		first = true
		s.leave()
		s.routines.Wait()
		s.broker.mu.Lock()
		delete(s.broker.subs, s)
		s.broker.mu.Unlock()
	})
	return first
}

// stop refuses everything from now on. The caller holds mu.
func (s *subscription) stop(why error) {
	if s.why == nil {
		s.why = why
		close(s.over)
	}
}

// leave takes leave of the nodes, gives back what is held, and ends the sources. The nodes
// are told to send nothing more first, or they could send the same again.
func (s *subscription) leave() {
	s.mu.Lock()
	for _, src := range s.sources {
		src.bye()
	}
	s.leases.each(func(l *lease) {
		l.from.giveBack(l.id, 0)
		s.leases.free(l)
	})
	for _, src := range s.sources {
		src.flush()
	}
	s.mu.Unlock()
	s.cancel()
}

// arrive takes a message from a source, or gives it back when nobody wants it.
func (s *subscription) arrive(src *source, m *nsqwire.Message, headers millrace.Headers, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.keeper.now()
	if src.hung || s.keeper.stopped(now) {
		src.hangUp()
		return
	}
	if s.why != nil || s.prefetch == 0 {
		src.giveBack(m.ID, 0)
		src.flush()
		return
	}
	if m.Attempts > 1 {
		s.leases.supersede(src, m.ID)
	}
	l := s.leases.take(src, m.ID, now+int64(s.lease), now+int64(src.longest))
	d := millrace.Delivery{Attempt: uint32(m.Attempts), Published: m.Timestamp, Tag: l.tag()}
	d.Headers, d.Body = headers, body
	if len(s.sources) == 1 {
		d.Seq, _ = nsqwire.ParseID(m.ID[:])
	}
	s.ready.push(d)
	s.keeper.came(src, now)
	s.wake()
}

// touchFailed notes that a node has given a message to somebody else. It says this of FIN
// and REQ too, when there is nothing left to be noted.
func (s *subscription) touchFailed(src *source, id []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(id) == nsqwire.IDLen {
		s.leases.supersede(src, [nsqwire.IDLen]byte(id))
	}
}
