package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

// subOptions are what the user asks of sub.
type subOptions struct {
	topic, channel string
	broker         string

	count int // 0: no end
	json  bool
	null  bool
}

func newSub() *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:   "sub TOPIC",
		Short: "Print the messages of a topic as they come",
		Long: `Sub prints the body of each message in a line, and acknowledges it when it is written.

Without --channel it makes a channel of its own that goes when it ends: it sees what is
published from now on, and what waits in the topic if that has no channel yet. With
--channel it takes the messages of that channel, which stays and keeps what comes later;
others who consume from the same channel get other messages.

With --json each line is an object: id, sequence, attempt, published (nanoseconds since
1970), headers if there are any, and body, or body_base64 when the body is not text.

` + brokerHelp,
		Example: `  millrace sub access
  millrace sub orders -c audit --json -n 10
  millrace sub files -c backup -0 | xargs -0 gzip`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.topic, err = oneName(args, "a topic", "millrace sub TOPIC"); err != nil {
				return err
			}
			if o.channel == "" {
				o.channel = "sub." + strings.ToLower(rand.Text()[:12]) + millrace.EphemeralSuffix
			} else if err := millrace.CheckName(o.channel); err != nil {
				return fmt.Errorf("--channel: %w", err)
			}
			if o.count < 0 || cmd.Flags().Changed("count") && o.count == 0 {
				return flagError("count", "%d is not a number of messages", o.count)
			}
			return runSub(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.channel, "channel", "c", "", "take the messages of this `CHANNEL` (default one of its own)")
	f.IntVarP(&o.count, "count", "n", 0, "end after `N` messages (default never)")
	f.BoolVar(&o.json, "json", false, "print each message with what is known of it, in JSON")
	f.BoolVarP(&o.null, "null", "0", false, "end lines with a NUL byte in place of a newline")
	brokerFlag(f, &o.broker)
	complete(cmd, "channel")
	complete(cmd, "count")
	complete(cmd, "broker", "nsq://", "file:///")
	return cmd
}

// subscription is what sub needs of a millrace.Subscription.
type subscription interface {
	Receive(ctx context.Context, buf []millrace.Delivery) (int, error)
	Ack(ctx context.Context, ds ...millrace.Delivery) error
	SetPrefetch(n int)
	Close() error
}

// subWindow is the most messages that sub holds without having printed them.
const subWindow = 256

// subscribe connects to the broker. Closing the subscription disconnects.
func (o *subOptions) subscribe(ctx context.Context) (subscription, error) {
	at, err := parseNSQ(o.broker)
	switch {
	case err != nil:
		return nil, err
	case at != nil:
		return subscribeNSQ(at, o.topic, o.channel, o.window(0))
	}
	b, err := millrace.Open(ctx, o.broker)
	if err != nil {
		return nil, err
	}
	s, err := b.Subscribe(ctx, o.topic, o.channel, millrace.SubscribeOptions{Prefetch: o.window(0)})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &brokerSubscription{s, b}, nil
}

// window is how many messages to hold when some were printed: never more than are to come.
func (o *subOptions) window(printed int) int {
	if o.count == 0 {
		return subWindow
	}
	return min(subWindow, o.count-printed)
}

// brokerSubscription closes its broker too.
type brokerSubscription struct {
	millrace.Subscription
	broker millrace.Broker
}

// Close ends both.
func (s *brokerSubscription) Close() error {
	return errors.Join(s.Subscription.Close(), s.broker.Close())
}

// runSub prints until it has printed enough, or is asked to end.
func runSub(ctx context.Context, o subOptions) error {
	signals := catchSignals()
	defer signals.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from, err := o.subscribe(ctx)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-signals.stop:
			cancel(errInterrupted)
		case <-ended:
		}
	}()
	err = o.printAll(ctx, from)
	closed := from.Close()
	switch {
	case errors.Is(err, errInterrupted) && o.count > 0:
		return status(exitOther) // fewer than were asked for
	case errors.Is(err, errInterrupted):
		return nil // how it is usually ended
	case errors.Is(err, syscall.EPIPE):
		return status(exitPipe) // as is usual, without a word
	}
	return errors.Join(err, closed)
}

// printAll prints what comes and acknowledges it.
func (o *subOptions) printAll(ctx context.Context, from subscription) error {
	printer := &messagePrinter{end: '\n', json: o.json}
	if o.null {
		printer.end = 0
	}
	deliveries := make([]millrace.Delivery, subWindow)
	for printed := 0; o.count == 0 || printed < o.count; {
		n, err := from.Receive(ctx, deliveries[:o.window(printed)])
		if err != nil {
			return err
		}
		if err := printer.print(os.Stdout, deliveries[:n]); err != nil {
			return fmt.Errorf("the messages cannot be written: %w", err)
		}
		if printed += n; o.count > 0 {
			from.SetPrefetch(o.window(printed))
		}
		// Also when it was asked to end meanwhile: they are printed.
		if err := from.Ack(context.WithoutCancel(ctx), deliveries[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
			return err
		}
		clear(deliveries[:n])
	}
	return nil
}
