package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// control does something with the server's queues and exchanges, on a channel of its own,
// because one mistake ends a channel. What the connection was lost under is done again:
// it must be something that can be repeated. Returns the cause of ctx when that ends first,
// and else what op returns.
func (b *Broker) control(ctx context.Context, op func(ch *amqp.Channel) error) error {
	for {
		c, err := b.controls.get(ctx)
		if err != nil {
			return err
		}
		err = b.over(ctx, c, op)
		if err == nil || ctx.Err() != nil || fromServer(err) || !errors.Is(err, errNoAnswer) && !c.IsClosed() {
			return err
		}
	}
}

// over runs op on a channel of its own of the connection.
func (b *Broker) over(ctx context.Context, c *conn, op func(ch *amqp.Channel) error) error {
	return b.inTime(ctx, c, func() error { return onChannel(c, op) })
}

func onChannel(c *conn, op func(ch *amqp.Channel) error) error {
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }() // it may have ended with an error already
	return op(ch)
}

// answersWithin is how long the server may take to answer. It does answer heartbeats when a queue
// hangs, as a quorum queue does that waits for a leader.
const answersWithin = 15 * time.Second

// errNoAnswer is why a connection was given up.
var errNoAnswer = errors.New("the server does not answer")

// inTime runs op, which uses the connection, and returns when it has returned or ctx ends.
// An op that is left behind ends with the connection, at the latest.
func (b *Broker) inTime(ctx context.Context, c *conn, op func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !b.begin() {
		return millrace.ErrClosed
	}
	done := make(chan error, 1)
	go func() {
		defer b.routines.Done()
		done <- op()
	}()
	late := time.NewTimer(answersWithin)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w, while waiting for an answer of %s", context.Cause(ctx), c.name)
	case <-late.C:
		_ = c.socket.Close() // on the next connection it may answer
		<-c.dead
		return fmt.Errorf("%s: %w", c.name, errNoAnswer)
	}
}

// fromServer says whether the server refuses what it was told, and would refuse it again.
func fromServer(err error) bool {
	var e *amqp.Error
	if !errors.As(err, &e) || !e.Server {
		return false
	}
	switch e.Code {
	case amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed:
		return true
	}
	return endsConnection(err)
}

// endsConnection says whether the server ended the connection because of what it was told on it,
// which it would do again.
func endsConnection(err error) bool {
	var e *amqp.Error
	if !errors.As(err, &e) || !e.Server {
		return false
	}
	switch e.Code {
	case amqp.FrameError, amqp.SyntaxError, amqp.CommandInvalid, amqp.ChannelError, amqp.UnexpectedFrame,
		amqp.NotAllowed, amqp.NotImplemented:
		return true
	}
	return false
}

// forbidden is an error of the server about what this user may not do.
type forbidden struct{ error }

// Unwrap returns millrace.ErrRefused, and what the server said.
func (f forbidden) Unwrap() []error { return []error{millrace.ErrRefused, f.error} }

// named returns err, as forbidden if it is about what this user may not do.
func named(err error) error {
	if hasCode(err, amqp.AccessRefused) || hasCode(err, amqp.NotAllowed) {
		return forbidden{err}
	}
	return err
}

// hasCode says whether the server ended a channel with that code.
func hasCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Code == code
}
