package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/fleet"
)

const (
	// silence is how long no result must have come before map looks why. It looks again
	// after twice as long, and so on up to maxSilence.
	silence, maxSilence = 5 * time.Second, time.Minute
	// lookWithin bounds how long the broker may take to answer.
	lookWithin = 3 * time.Second
)

// explainSilence says, while no results come from workers elsewhere, what they are waited
// for, until ctx ends. It says so once, unless that changes.
func (m *mapping) explainSilence(ctx context.Context) {
	const step = 250 * time.Millisecond
	var (
		told     string // the kind of reason that was told
		answered int64
		quiet    time.Time
		next     = silence
	)
	for ticker := time.NewTicker(step); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return
		}
		s := m.client.Stats()
		if s.Answered != answered || s.Submitted == s.Answered || quiet.IsZero() {
			if told != "" && s.Answered != answered {
				m.say("results come again")
				told = ""
			}
			answered, quiet, next = s.Answered, time.Now(), silence
			continue
		}
		if time.Since(quiet) < next {
			continue
		}
		next = time.Since(quiet) + min(next, maxSilence)
		reason, text := m.whySilent(ctx, s.Submitted-s.Answered)
		if ctx.Err() == nil && reason != told && text != "" {
			m.say("%s", text)
			told = reason
		}
	}
}

// whySilent says why no result comes, in a word and in a sentence; both are "" when the
// workers are at it.
func (m *mapping) whySilent(ctx context.Context, unanswered int64) (reason, text string) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	waits := fmt.Sprintf("%d tasks wait", unanswered)
	if unanswered == 1 {
		waits = "a task waits"
	}
	depth, err := m.broker.Depth(ctx, m.queue, millrace.WorkChannel)
	if err != nil && !errors.Is(err, millrace.ErrNotFound) && !errors.Is(err, rabbitmq.ErrUncounted) {
		return "broker", fmt.Sprintf("no results come, because the broker does not answer: %s, and it is tried again until it does (%v)", waits, err)
	}
	workers, err := fleet.Open(ctx, m.broker, m.queue)
	if err != nil {
		return "", "" // it may be known the next time
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookWithin)
		defer cancel()
		_ = workers.Close(ctx)
	}()
	report, err := workers.Report(ctx)
	switch {
	case err != nil:
		return "", ""
	case report.Paused:
		return "paused", fmt.Sprintf("no results come, because the queue is paused: %s until it is told to go on: millrace resume %s", waits, m.queue)
	case report.Answered() == 0 && depth.InFlight == 0: // else somebody works who knows nothing of roll calls
		return "workers", fmt.Sprintf("no results come, because no worker is there: %s for one, as with millrace work %s --broker URL -- COMMAND", waits, m.queue)
	case report.Answered() > 0 && report.Size() == 0:
		return "replicas", fmt.Sprintf("no results come, because the workers have no replicas: %s for one: millrace scale %s +1", waits, m.queue)
	}
	return "", ""
}
