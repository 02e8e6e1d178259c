package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

const (
	// tellAfter is how long the broker may take no messages without a word to the user, when
	// it is known why; and silentFor when it is not: it may just be slow.
	tellAfter = time.Second
	silentFor = 5 * time.Second
)

// trouble is why the broker takes no messages. What is not marked otherwise belongs to the
// goroutine that publishes.
type trouble struct {
	say    func(format string, args ...any)
	reason atomic.Pointer[string] // anybody may set it; nil: none is known

	began time.Time // of the publish that the trouble is about
	told  bool      // the user knows
}

// driver notes what a driver logs: why it has no connection, or that it has one again. The
// user hears of it only while something waits to be published.
func (t *trouble) driver(r slog.Record, line string) {
	if r.Level < slog.LevelWarn {
		t.reason.Store(nil)
		return
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			line = a.Value.String()
		}
		return true
	})
	t.reason.Store(&line)
}

// begin is called before something is published.
func (t *trouble) begin() { t.began = time.Now() }

// over is called when it is published.
func (t *trouble) over() {
	if t.told {
		t.say("the broker takes messages again")
	}
	t.told = false
	t.reason.Store(nil)
}

// failed notes why it was not published.
func (t *trouble) failed(err error) {
	reason := explain(err)
	t.reason.Store(&reason)
	t.look()
}

// look tells the user, once, when it is time to, and returns when to look again.
func (t *trouble) look() time.Duration {
	waited, reason := time.Since(t.began), t.reason.Load()
	switch {
	case t.told:
		return time.Hour
	case waited < tellAfter:
		return tellAfter - waited
	case reason == nil && waited < silentFor:
		return min(tellAfter, silentFor-waited)
	}
	t.told = true
	why := "it does not answer"
	if reason != nil {
		why = *reason
	}
	t.say("the broker does not take messages: %s; trying again until it does", why)
	return time.Hour
}

// attempt publishes messages once. Drivers wait by themselves for a broker that is away: then
// the user is told.
func (p *publishing) attempt(ctx context.Context, msgs []millrace.Message) error {
	done := make(chan error, 1)
	go func() { done <- p.to.Publish(ctx, p.topic, msgs...) }()
	look := time.NewTimer(p.trouble.look())
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-look.C:
			look.Reset(p.trouble.look())
		}
	}
}

// publish publishes messages, however often it must try.
func (p *publishing) publish(ctx context.Context, bodies [][]byte) error {
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = body
	}
	p.trouble.begin()
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := p.attempt(ctx, msgs)
		switch {
		case err == nil:
			p.trouble.over()
			p.done += len(msgs)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, millrace.ErrTooLarge):
			return p.tooLarge(ctx, bodies, err)
		case refusedForGood(err):
			return fmt.Errorf("the broker refuses it: %s", explain(err))
		}
		p.trouble.failed(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// refusedForGood says whether the broker will never take what this user publishes there.
func refusedForGood(err error) bool {
	return errors.Is(err, millrace.ErrBadName) || errors.Is(err, millrace.ErrClosed) || errors.Is(err, millrace.ErrRefused)
}

// tooLarge publishes messages of which one is too large: the broker does not say which one,
// so the halves are tried. From a command such a line is left out, with a word to the user.
func (p *publishing) tooLarge(ctx context.Context, bodies [][]byte, why error) error {
	half := len(bodies) / 2
	switch {
	case half > 0:
		if err := p.publish(ctx, bodies[:half]); err != nil {
			return err
		}
		return p.publish(ctx, bodies[half:])
	case len(p.command) > 0:
		p.say("a line of %d bytes is not published: %s", len(bodies[0]), explain(why))
		p.left++
		return nil
	}
	return fmt.Errorf("a line of %d bytes cannot be published: %s", len(bodies[0]), explain(why))
}
