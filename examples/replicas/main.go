// Command replicas shows a replica set: several replicas share one queue, any of them
// may take a message. They are retired one by one, once through the set and once by a
// poison pill in the queue; while there is none, messages wait; new replicas handle
// exactly those that waited.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replicas:", err)
		os.Exit(1)
	}
}

// pill is a message that makes the replica that takes it leave.
const pill = 0

// handled says which replica handled which message.
type handled struct{ replica, message int }

// story is the queue, the set and what the replicas report.
type story struct {
	out     io.Writer
	queue   *mpmc.Chan[int]
	set     *replica.Set[int]
	reports chan handled
	sent    int
}

func run(ctx context.Context, out io.Writer) error {
	s := &story{out: out, queue: mpmc.NewUnbounded[int](), reports: make(chan handled)}
	s.set = replica.New(s.queue, s.handle, replica.Config[int]{Replicas: 3})
	served := make(chan error, 1)
	go func() { served <- s.set.Serve(ctx) }()
	err := s.tell(ctx)
	return errors.Join(err, s.set.Shutdown(ctx), <-served)
}

// handle is the work: it takes a moment, and then says who did it.
func (s *story) handle(ctx context.Context, message int) error {
	if message == pill {
		return replica.ErrRetire
	}
	time.Sleep(10 * time.Millisecond)
	s.reports <- handled{replica.Number(ctx), message}
	return nil
}

func (s *story) tell(ctx context.Context) error {
	if err := s.set.Scale(ctx, 3); err != nil { // returns when the three are ready
		return err
	}
	s.five(ctx, "three replicas")

	if err := s.set.Retire(ctx); err != nil {
		return err
	}
	s.five(ctx, "one was retired")

	if err := s.queue.Send(ctx, pill); err != nil {
		return err
	}
	s.five(ctx, "one took a poison pill")

	if err := s.set.Retire(ctx); err != nil {
		return err
	}
	s.send(ctx)
	_, _ = fmt.Fprintf(s.out, "the last was retired: %d replicas, %d messages wait\n", s.set.Size(), s.queue.Len())

	if err := s.set.Scale(ctx, 3); err != nil {
		return err
	}
	s.collect("three new replicas")
	return nil
}

// five sends five messages and waits until they are handled.
func (s *story) five(ctx context.Context, title string) {
	s.send(ctx)
	s.collect(title)
}

func (s *story) send(ctx context.Context) {
	for range 5 {
		s.sent++
		_ = s.queue.Send(ctx, s.sent) // an unbounded queue that is open takes everything
	}
}

func (s *story) collect(title string) {
	_, _ = fmt.Fprintf(s.out, "%s:\n", title)
	for range 5 {
		h := <-s.reports
		_, _ = fmt.Fprintf(s.out, "  replica %d handled message %d\n", h.replica, h.message)
	}
}
