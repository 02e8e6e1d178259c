package rabbitmq

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// session is a channel on which messages are published and confirmed, until it ends.
type session struct {
	conn  *conn
	ch    *amqp.Channel
	name  string // begins the ids of its messages, which other programs take for unique
	parts chan *part
	ended chan struct{} // closed when the channel has ended, and why is set
	why   error

	mu       sync.Mutex // guards all below
	returned map[uint64]struct{}
	users    int  // calls of sendOnce
	retired  bool // nobody else uses it, and it ends with its last user
}

// part is what is written and confirmed together.
type part struct {
	letters []letter

	done     chan struct{} // closed when they are written, and those below are set
	from     uint64        // the number of the first one
	confirms []*amqp.DeferredConfirmation
	err      error
}

// publisher returns the session, once the server takes messages. There is one at a time. The caller
// leaves it when done.
func (b *Broker) publisher(ctx context.Context) (*session, error) {
	for {
		c, err := b.publishes.get(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.unblocked(ctx); err != nil {
			return nil, err
		}
		select {
		case b.sessionTurn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		s, err := b.sessionOn(ctx, c)
		<-b.sessionTurn
		if err == nil || ctx.Err() != nil || fromServer(err) || isClosed(err) {
			return s, err
		}
	}
}

// sessionOn returns the session on a connection. The caller has the turn.
func (b *Broker) sessionOn(ctx context.Context, c *conn) (*session, error) {
	if s := b.session; s != nil && s.conn == c && !s.ch.IsClosed() && s.enter() {
		return s, nil
	}
	var s *session
	err := b.inTime(ctx, c, func() error {
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		made := &session{
			conn: c, ch: ch, name: strings.ToLower(rand.Text()[:16]) + "-", parts: make(chan *part), ended: make(chan struct{}),
			returned: make(map[uint64]struct{}), users: 1,
		}
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		// Two, so that a return is noted when the library goes on to the confirmation: it sends
		// to the one, and then, when that was received and noted, to the other.
		returns, noted := ch.NotifyReturn(make(chan amqp.Return)), ch.NotifyReturn(make(chan amqp.Return))
		if !b.begin() {
			return millrace.ErrClosed
		}
		go func() {
			defer b.routines.Done()
			made.note(returns, noted)
			made.why = amqp.ErrClosed
			if err := <-closed; err != nil {
				made.why = err
			}
			close(made.ended)
		}()
		if !b.begin() {
			return millrace.ErrClosed
		}
		go func() {
			defer b.routines.Done()
			made.write()
		}()
		s = made
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.session = s
	return s, nil
}

// enter says that somebody uses the session from now on; not one that is retired.
func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.retired {
		s.users++
	}
	return !s.retired
}

// retire has the next letters take another channel, and not those that are on their way.
func (s *session) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
}

// left is told by who has entered.
func (b *Broker) left(s *session) {
	s.mu.Lock()
	s.users--
	last := s.retired && s.users == 0
	s.mu.Unlock()
	if last && b.begin() {
		go func() {
			defer b.routines.Done()
			_ = s.ch.Close() // it may have ended already
		}()
	}
}

// note keeps the numbers of letters that are returned, until the channel ends.
func (s *session) note(returns, noted <-chan amqp.Return) {
	for r := range returns {
		s.mu.Lock()
		s.returned[tagOf(r.MessageId)] = struct{}{}
		s.mu.Unlock()
		<-noted
	}
}

// write writes parts, one after the other, until the channel ends.
func (s *session) write() {
	for next := uint64(1); ; {
		select {
		case p := <-s.parts:
			next += s.writePart(p, next)
		case <-s.ended:
			return
		}
	}
}

// writePart returns how many letters were written.
func (s *session) writePart(p *part, from uint64) (n uint64) {
	defer close(p.done)
	s.conn.socket.hold()
	defer s.conn.socket.release()
	p.from = from
	p.confirms = make([]*amqp.DeferredConfirmation, 0, len(p.letters))
	for i := range p.letters {
		l := &p.letters[i]
		l.message.MessageId = s.name + strconv.FormatUint(from+n, 10)
		confirm, err := s.ch.PublishWithDeferredConfirm(l.exchange, l.key, true, false, l.message)
		if err != nil {
			p.err = err
			return n
		}
		p.confirms = append(p.confirms, confirm)
		n++
	}
	return n
}
