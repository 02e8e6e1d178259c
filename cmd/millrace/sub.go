package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

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

With --json each line is an object: id and sequence where the broker numbers its messages,
attempt, published (nanoseconds since 1970), headers if there are any, and body, or
body_base64 when the body is not text.

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
	brokerFlag(cmd, &o.broker, serveURL, anyBroker)
	complete(cmd, "channel")
	complete(cmd, "count")
	return cmd
}

const (
	// subWindow is the most messages that sub holds without having printed them.
	subWindow = 256
	// subLease is how long it holds them when nobody reads what it prints: as long as nsqd
	// gives who does not ask.
	subLease = time.Minute
)

// window is how many messages to hold when some were printed: never more than are to come.
func (o *subOptions) window(printed int) int {
	if o.count == 0 {
		return subWindow
	}
	return min(subWindow, o.count-printed)
}

// runSub prints until it has printed enough, or is asked to end.
func runSub(ctx context.Context, o subOptions) error {
	signals := catchSignals()
	defer signals.release()
	ctx, end := signals.context(ctx)
	defer end()
	err := o.follow(ctx)
	switch {
	case errors.Is(err, errInterrupted) && o.count > 0:
		return status(exitOther) // fewer than were asked for
	case errors.Is(err, errInterrupted):
		return nil // how it is usually ended
	case errors.Is(err, syscall.EPIPE):
		return status(exitPipe) // as is usual, without a word
	}
	return err
}

// follow connects to the broker, prints, and takes leave of it.
func (o *subOptions) follow(ctx context.Context) error {
	b, err := openBroker(ctx, o.broker)
	if err != nil {
		return err
	}
	from, err := b.Subscribe(ctx, o.topic, o.channel, millrace.SubscribeOptions{Prefetch: o.window(0), Lease: subLease})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	err = o.printAll(ctx, from)
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(from.Close(), b.Close()) }()
	select {
	case e := <-closed:
		return errors.Join(err, e)
	case <-time.After(farewell):
		return errors.Join(err, errors.New("the broker does not answer: what was printed last may be delivered again"))
	}
}

// printAll prints what comes and acknowledges it.
func (o *subOptions) printAll(ctx context.Context, from millrace.Subscription) error {
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
