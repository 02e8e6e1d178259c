package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// deadOptions are what the user asks of dead.
type deadOptions struct {
	topic  string // that the letters are of
	broker string

	ids     map[string]bool // 16 hexadecimal digits; none: all
	channel string          // "": every
	count   int             // 0: no end
	all     bool
	json    bool
}

const deadHelp = `A message that was delivered too often without being finished, or a task that has failed
for good, is a dead letter: it waits in the topic TOPIC.dead, in its channel dead, with its
body, its headers, and the reason. Workers make them of tasks, see millrace map --retries;
the broker does of messages, see millrace serve --max-attempts, when a consumer is there to
which such a message would be delivered once more.
`

func newDead() *cobra.Command {
	o := deadOptions{}
	cmd := &cobra.Command{
		Use:   "dead TOPIC",
		Args:  cobra.ArbitraryArgs, // resolve says what is wrong with them
		Short: "List the dead letters of a topic, try them again, or drop them",
		Long: `Dead lists the dead letters of a topic or queue, the oldest first.

` + deadHelp + `
With --json each line is an object, as that of millrace sub --json. Those that somebody
else is at are not listed. A topic that is called retry or drop is listed as retry.dead
or drop.dead.

` + brokerHelp,
		Example: `  millrace dead orders
  millrace dead orders --json | jq -r .headers.error
  millrace dead retry orders
  millrace dead drop orders 000000000000002a`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(cmd, args, false, "millrace dead TOPIC"); err != nil {
				return err
			}
			return o.list(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.define(cmd, 100, "list at most `N`")
	cmd.Flags().BoolVar(&o.json, "json", false, "print each letter with all that is known of it, in JSON")
	cmd.AddCommand(newDeadRetry(), newDeadDrop())
	return cmd
}

func newDeadRetry() *cobra.Command {
	o := deadOptions{}
	cmd := &cobra.Command{
		Use:   "retry TOPIC [ID]...",
		Short: "Publish dead letters to their topic again",
		Long: `Retry publishes the dead letters of a topic, or those with the IDs that are listed, to the
topic again, as they were before they died, and takes them away when that is safe. When it
is killed in the middle none is lost, and a few may be published twice. All channels of
the topic get what is published.

` + deadHelp + `
` + brokerHelp,
		Example: `  millrace dead retry orders
  millrace dead retry orders 000000000000002a 000000000000002c
  millrace dead retry orders --channel billing -n 10`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(cmd, args, true, "millrace dead retry TOPIC"); err != nil {
				return err
			}
			return o.retry(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.define(cmd, 0, "take at most `N`, the oldest (default all)")
	return cmd
}

func newDeadDrop() *cobra.Command {
	o := deadOptions{}
	cmd := &cobra.Command{
		Use:   "drop TOPIC {ID... | -n N | --channel CHANNEL | --all}",
		Short: "Take dead letters away for good",
		Long: `Drop takes dead letters away for good: those with the IDs that are listed, the oldest, those
of a channel, or with --all all.

` + brokerHelp,
		Example: `  millrace dead drop orders 000000000000002a
  millrace dead drop orders --all`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(cmd, args, true, "millrace dead drop TOPIC --all"); err != nil {
				return err
			}
			if !o.all && len(o.ids) == 0 && o.count == 0 && o.channel == "" {
				return errors.New("which of them? write the IDs that millrace dead lists, -n N, --channel CHANNEL, or --all")
			}
			return o.drop(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.define(cmd, 0, "take at most `N`, the oldest")
	cmd.Flags().BoolVar(&o.all, "all", false, "take all")
	return cmd
}

func (o *deadOptions) define(cmd *cobra.Command, count int, usage string) {
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "n", count, usage)
	f.StringVarP(&o.channel, "channel", "c", "", "only what this `CHANNEL` of the topic has given up")
	brokerFlag(cmd, &o.broker, serveURL, anyBroker)
	complete(cmd, "count")
	complete(cmd, "channel")
}

// resolve checks what the user wrote.
func (o *deadOptions) resolve(cmd *cobra.Command, args []string, ids bool, usage string) (err error) {
	own, rest := args, []string(nil)
	if ids && len(args) > 1 {
		own, rest = args[:1], args[1:]
	}
	if o.topic, err = oneName(own, "a topic", usage); err != nil {
		return err
	}
	o.topic = livingTopic(o.topic)
	if err := millrace.CheckName(broker.DeadTopic(o.topic)); err != nil {
		return fmt.Errorf("the topic has no dead letters: %w", err)
	}
	if o.channel != "" {
		if err := millrace.CheckName(o.channel); err != nil {
			return fmt.Errorf("--channel: %w", err)
		}
	}
	if o.count < 0 || cmd.Flags().Changed("count") && o.count == 0 {
		return flagError("count", "%d is not a number of dead letters", o.count)
	}
	o.ids = make(map[string]bool, len(rest))
	for _, id := range rest {
		if _, err := strconv.ParseUint(id, 16, 64); err != nil || len(id) != 16 {
			return fmt.Errorf("%q is not the ID of a dead letter: write one that millrace dead %s lists", id, o.topic)
		}
		o.ids[strings.ToLower(id)] = true
	}
	return nil
}

// livingTopic is the topic that the name is of, which may be that of its dead letters.
func livingTopic(name string) string {
	base, ephemeral := strings.CutSuffix(name, millrace.EphemeralSuffix)
	if living := strings.TrimSuffix(base, millrace.DeadSuffix); living != "" {
		base = living
	}
	if ephemeral {
		base += millrace.EphemeralSuffix
	}
	return base
}

// wants says whether the letter is one of those that the user means.
func (o *deadOptions) wants(d *millrace.Delivery) bool {
	return (len(o.ids) == 0 || o.ids[letterID(d)]) &&
		(o.channel == "" || o.channel == d.Headers.Text(millrace.HeaderChannel))
}

// retry publishes letters to their topic again.
func (o *deadOptions) retry(ctx context.Context, out io.Writer) error {
	n, err := o.take(ctx, func(b millrace.Broker, ds []millrace.Delivery) error {
		msgs := make([]millrace.Message, len(ds))
		for i := range ds {
			msgs[i] = revived(&ds[i])
		}
		return b.Publish(ctx, o.topic, msgs...)
	})
	return o.tell(ctx, out, n, "published to "+o.topic+" again", err)
}

// drop takes letters away.
func (o *deadOptions) drop(ctx context.Context, out io.Writer) error {
	n, err := o.take(ctx, func(millrace.Broker, []millrace.Delivery) error { return nil })
	return o.tell(ctx, out, n, "dropped", err)
}

// tell says what was done, also when not all could be.
func (o *deadOptions) tell(ctx context.Context, out io.Writer, n int, done string, err error) error {
	if n == 0 && err == nil {
		if err := o.noSuchTopic(ctx); err != nil {
			return err
		}
	}
	_, e := fmt.Fprintf(out, "%s %s\n", letters(int64(n)), done)
	return errors.Join(err, e)
}

func letters(n int64) string {
	if n == 1 {
		return "1 dead letter"
	}
	return fmt.Sprintf("%d dead letters", n)
}

// letterID is how the user names a letter: as NSQ does a message. It is "" where the
// broker does not number its messages.
func letterID(d *millrace.Delivery) string {
	if d.Seq == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", d.Seq)
}
