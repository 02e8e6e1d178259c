package nats

import (
	"context"
	"errors"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

// Consumers of a channel listen to a subject of its own. Who leaves an ephemeral channel,
// which goes with its last consumer, asks there whether somebody is left, and if nobody is,
// the server says so at once. When a consumer dies instead, the server takes the channel
// away because nobody has asked it for messages for some time. Who gives a channel another
// lease says so there.

// leaseWord is what he says.
const leaseWord = "lease"

// leaveAfter is how long that is, and a second more.
const leaveAfter = 3 * time.Second

func presenceSubject(topic, channel string) string {
	return Subject(topic) + "." + Consumer(channel)
}

// join makes sure that the channel is there, and stays.
func (s *subscription) join(ctx context.Context) (err error) {
	if s.presence, err = s.link.nc.Subscribe(presenceSubject(s.topic, s.channel), s.asked); err != nil {
		return err
	}
	if err = s.broker.channel(ctx, s.topic, s.channel, s.lease); err != nil {
		_ = s.presence.Unsubscribe()
	}
	return err
}

// asked handles what others say to the channel's consumers.
func (s *subscription) asked(m *natsio.Msg) {
	if string(m.Data) == leaseWord {
		s.unsettled(time.Now())
		return
	}
	_ = m.Respond(nil)
}

// leave takes an ephemeral channel away when nobody else is there.
func (s *subscription) leave() {
	_ = s.presence.Unsubscribe()
	if !millrace.Ephemeral(s.channel) || !s.link.isUp() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastPause)
	defer cancel()
	_, err := s.link.nc.RequestWithContext(ctx, presenceSubject(s.topic, s.channel), nil)
	if errors.Is(err, natsio.ErrNoResponders) {
		_ = s.broker.deleteChannel(ctx, s.topic, s.channel) // else the server does it later
	}
}

// stayAlive tells the server that an ephemeral channel has a consumer, also while that
// asks for nothing. It is a request from which nobody will get anything: no message is so
// small, and nobody listens to its inbox.
func (s *subscription) stayAlive(now time.Time) {
	if !millrace.Ephemeral(s.channel) {
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
