package nats

import (
	"context"
	"errors"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

// An ephemeral channel goes with its last consumer. Its consumers listen to a subject of
// the channel's own; who leaves asks there whether somebody is left, and if nobody is, the
// server says so at once. When a consumer dies instead, the server takes the channel away
// because nobody has asked it for messages for some time.

// leaveAfter is how long that is, and a second more.
const leaveAfter = 3 * time.Second

func (s *subscription) presenceSubject() string {
	return Subject(s.topic) + "." + Consumer(s.channel)
}

// join makes sure that the channel is there, and stays.
func (s *subscription) join(ctx context.Context) (err error) {
	if millrace.Ephemeral(s.channel) {
		if s.presence, err = s.link.nc.Subscribe(s.presenceSubject(), func(m *natsio.Msg) { _ = m.Respond(nil) }); err != nil {
			return err
		}
	}
	if err = s.broker.channel(ctx, s.topic, s.channel, s.lease); err != nil && s.presence != nil {
		_ = s.presence.Unsubscribe()
	}
	return err
}

// leave takes an ephemeral channel away when nobody else is there.
func (s *subscription) leave() {
	if s.presence == nil {
		return
	}
	_ = s.presence.Unsubscribe()
	if !s.link.isUp() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastPause)
	defer cancel()
	_, err := s.link.nc.RequestWithContext(ctx, s.presenceSubject(), nil)
	if errors.Is(err, natsio.ErrNoResponders) {
		_ = s.broker.deleteChannel(ctx, s.topic, s.channel) // else the server does it later
	}
}

// stayAlive tells the server that an ephemeral channel has a consumer, also while that
// asks for nothing. It is a request from which nobody will get anything: no message is so
// small, and nobody listens to its inbox.
func (s *subscription) stayAlive(now time.Time) {
	if s.presence == nil {
		return
	}
	s.mu.Lock()
	due := now.Sub(s.pull.alive) > leaveAfter/3
	if due {
		s.pull.alive = now
	}
	s.mu.Unlock()
	if due {
		s.link.send(s.next(), s.link.nc.NewInbox(), []byte(`{"batch":1,"max_bytes":1,"expires":1000000000}`))
	}
}
