package rabbitmq

import (
	"errors"
	"time"
)

// In a cluster, what the leader of a quorum queue has just sent may get lost when it dies. The
// next one takes it for delivered. RabbitMQ notices when it delivers more to the same consumer;
// but when all that the consumer may hold was lost, or nothing more comes, it waits for ever
// (rabbitmq-server issue 15473). So a subscription that gets nothing for some time asks again, over
// a new connection: with the end of the old one all that was sent by it is ready again.

// A subscription that gets nothing asks again after idleFirst, then each time after twice as long,
// up to idleMost: it may well be that there is nothing.
const (
	idleFirst = 10 * time.Second
	idleMost  = time.Minute
)

// errIdle is why a connection is given up over which nothing comes.
var errIdle = errors.New("nothing has come for some time")

// idleness is for how long a subscription has got nothing.
type idleness struct {
	since time.Time // when it began to wait, on this connection; zero when something came
	times int       // how often it has asked again
}

// idles says whether it is time to ask again: not while something is held, which would come
// again too, nor of a node that is the only one.
func (s *subscription) idles(c *consuming, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.b.addr.hosts) == 1, s.ephemeral, s.target == 0, c.long != nil, len(s.held.all) > 0:
		s.idle = idleness{}
		return false
	case s.idle.since.IsZero():
		s.idle.since = now
		return false
	}
	if now.Sub(s.idle.since) < min(idleFirst<<min(s.idle.times, 10), idleMost) {
		return false
	}
	s.idle.times++
	return true
}
