package rabbitmq

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Long tasks. RabbitMQ closes the channel of a consumer that does not ack in consumer_timeout, which
// it does not tell, and which cannot be extended. So a delivery that has been held for a third of
// it is moved: a copy is published, and confirmed, to a queue that only this subscription consumes.
// When the copy has come back from there, it takes the place of the first delivery, which is acked; the
// server waits for the copy from now on. Whoever has the delivery notices nothing.
//
// Should the subscription die, the copy is in that queue again, where messages may stay for one second
// only, and then go back to the channel's own. A queue that nobody consumes any more goes after a minute.
//
// A server that is short of memory or disk takes no copies. Should that last for the other two thirds of
// consumer_timeout, the delivery is cut off after all, and delivered again.
const (
	movedStays   = time.Second
	queueStays   = time.Minute
	timeoutParts = 3
)

// moving is how a subscription's long tasks are moved, on one connection.
type moving struct {
	queue   string
	pending map[string]uint64 // what has been published and not come back: the Tag of its delivery
	count   int
}

// moveLong moves what has been held for long.
func (s *subscription) moveLong(c *consuming, now time.Time) error {
	timeout := time.Duration(s.b.consumerTimeout.Load())
	s.mu.Lock()
	old := s.held.old(now.Add(-timeout / timeoutParts))
	s.mu.Unlock()
	if len(old) == 0 {
		return nil
	}
	if c.long == nil {
		if err := s.prepareMoves(c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	letters := make([]letter, 0, len(old))
	for _, h := range old {
		if s.held.all[h.d.Tag] != h || h.busy {
			continue // it was settled meanwhile
		}
		h.since = now // if this one fails there is time to try once more
		c.long.count++
		id := strconv.Itoa(c.long.count)
		c.long.pending[id] = h.d.Tag
		l := s.b.copyOf(h)
		l.key = c.long.queue
		set(&l.message, headerMoved, id)
		letters = append(letters, l)
	}
	s.mu.Unlock()
	c.routines.Go(func() {
		// Should it fail, the next time is soon enough.
		_ = s.b.send(c.ctx, letters, errIsGone)
	})
	return nil
}

// prepareMoves makes the queue and consumes it, without a limit: whatever comes is known.
func (s *subscription) prepareMoves(c *consuming) error {
	long := &moving{queue: s.queue + heldInfix + strings.ToLower(rand.Text()[:16]), pending: make(map[string]uint64)}
	err := s.b.control(c.ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(long.queue, true, false, false, false, s.b.atLeastOnce(amqp.Table{
			"x-message-ttl": movedStays.Milliseconds(), "x-expires": queueStays.Milliseconds(),
			"x-dead-letter-exchange": arriveExchange, "x-dead-letter-routing-key": queueKey(s.queue),
		}))
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	c.long = long
	s.mu.Unlock()
	return s.consume(c.ctx, c, long.queue, &consumer{moves: true})
}

// movedHere puts a copy in the place of the delivery that it is of. The caller holds mu, and calls
// flush after.
func (s *subscription) movedHere(c *consuming, from *consumer, id string, tag uint64) {
	of, ours := c.long.pending[id]
	delete(c.long.pending, id)
	h := s.held.all[of]
	switch {
	case !ours:
		s.say(settlement{c, tag, reject}) // nobody here has it: back to where it came from
		from.outstanding--
	case h == nil: // it was settled meanwhile: handled, or given back
		s.say(settlement{c, tag, ackOne})
		from.outstanding--
	default:
		s.say(settlement{c, h.tag, ackOne})
		s.left([]*holding{h})
		h.tag, h.from, h.since = tag, from, time.Now()
	}
}

// learnTimeout remembers the server's consumer_timeout when it has closed a channel because of it.
func (b *Broker) learnTimeout(why error) {
	var ms int64
	if _, text, found := strings.Cut(why.Error(), "Timeout value used: "); found {
		if _, err := fmt.Sscanf(text, "%d ms", &ms); err == nil && ms > 0 {
			b.consumerTimeout.Store(int64(time.Duration(ms) * time.Millisecond))
		}
	}
}
