package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// peekOptions are what the user asks of peek.
type peekOptions struct {
	topic, channel string
	broker         string

	count int
	from  string
	json  bool
}

// fromHelp says what --from can be, where it is said at length.
const fromHelp = `--from is a sequence number, a message's id, a time such as 2026-01-31T12:00:00Z, or how
long ago, such as 90m.`

func newPeek() *cobra.Command {
	var o peekOptions
	cmd := &cobra.Command{
		Use:   "peek TOPIC [CHANNEL]",
		Short: "Show the messages of a queue without consuming them",
		Long: `Peek shows the messages that a channel is not done with, the oldest first: where each is,
how often it was delivered, when it was published, and how its body begins. Nothing changes
by it: no attempt is counted, no lease begun, no order changed. Without a channel it shows
what the topic's log holds, whatever channels have done with it.

A message is ready, in_flight (a consumer holds it, for so long yet) or deferred (until its
time comes). With --json each line is an object: id, sequence, published (nanoseconds since
1970), state, attempt (how often it was delivered), until, headers if there are any, and
body, or body_base64 when the body is not text.

` + fromHelp + `

` + brokerHelp + `
Only millrace serve, one at a time, and a directory can do this; it is asked over HTTP.`,
		Example: `  millrace peek orders billing
  millrace peek orders billing --json -n 1000 | jq -r .body
  millrace peek orders --from 1h`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.topic, o.channel, err = topicAndChannel(args, "millrace peek TOPIC [CHANNEL]"); err != nil {
				return err
			}
			if o.count < 1 {
				return flagError("count", "%d is not a number of messages", o.count)
			}
			return runPeek(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "n", 10, "show at most `N`")
	f.StringVar(&o.from, "from", "", "show those `FROM` there on (default from the oldest on)")
	f.BoolVar(&o.json, "json", false, "print each message with all that is known of it, in JSON")
	brokerFlag(cmd, &o.broker, serveURL, shownBrokers)
	complete(cmd, "count")
	complete(cmd, "from", "1h", "24h")
	return cmd
}

// topicAndChannel returns a name, and the second if there is one.
func topicAndChannel(args []string, usage string) (topic, channel string, err error) {
	if len(args) > 2 {
		return "", "", fmt.Errorf("unexpected %q: write a topic and a channel, as in: %s", args[2], usage)
	}
	if topic, err = oneName(args[:min(len(args), 1)], "a topic", usage); err != nil || len(args) < 2 {
		return topic, "", err
	}
	return topic, args[1], millrace.CheckName(args[1])
}

// runPeek prints the messages page by page, and to notes when there are more.
func runPeek(ctx context.Context, o *peekOptions, out, notes io.Writer) (err error) {
	a, err := openAPI(o.broker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	params := url.Values{"topic": {o.topic}, "channel": {o.channel}, "from": {o.from}}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for left := o.count; ; {
		// One more than are wanted, to know whether there are more.
		params.Set("n", strconv.Itoa(min(left+1, broker.MaxPeek)))
		var page struct{ Messages []description }
		if err := a.get(ctx, "/peek", params, &page); err != nil {
			return err
		}
		shown := page.Messages[:min(left, len(page.Messages))]
		if err := o.print(out, table, shown, left == o.count); err != nil {
			return err
		}
		switch left -= len(shown); {
		case len(shown) < len(page.Messages):
			_, err = fmt.Fprintln(notes, "there are more: see -n and --from")
			return err
		case len(shown) == 0 && left == o.count:
			_, err = fmt.Fprintln(notes, "no messages"+o.place())
			return err
		case len(shown) == 0:
			return nil
		}
		params.Set("from", strconv.FormatUint(shown[len(shown)-1].Sequence+1, 10))
	}
}

// place is where nothing was found.
func (o *peekOptions) place() string {
	var where strings.Builder
	if o.channel != "" {
		where.WriteString(" in channel " + o.channel + " of topic " + o.topic)
	} else {
		where.WriteString(" in topic " + o.topic)
	}
	if o.from != "" {
		where.WriteString(" from " + o.from + " on")
	}
	return where.String()
}

// print prints a line for each message.
func (o *peekOptions) print(out io.Writer, table *tabwriter.Writer, page []description, first bool) error {
	if o.json {
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		for i := range page {
			if err := lines.Encode(&page[i]); err != nil {
				return err
			}
		}
		return nil
	}
	head, line := "ID\tPUBLISHED\tSTATE\tATTEMPTS\tBODY\n", peekLine
	if o.channel == "" {
		head, line = "ID\tPUBLISHED\tBODY\n", storedLine
	}
	if first && len(page) > 0 {
		_, _ = io.WriteString(table, head)
	}
	for i := range page {
		_, _ = io.WriteString(table, line(&page[i])) // what fails, Flush says
	}
	return table.Flush()
}

// peekBody is how much is shown of a body, in characters.
const peekBody = 60

func peekLine(d *description) string {
	state := d.State
	if d.Until != 0 {
		state += " " + max(time.Until(time.Unix(0, d.Until)).Round(time.Second), 0).String()
	}
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%s\n", d.ID, published(d), state, d.Attempt, excerpt(d.bytes(), peekBody))
}

func storedLine(d *description) string {
	return fmt.Sprintf("%s\t%s\t%s\n", d.ID, published(d), excerpt(d.bytes(), peekBody))
}

func published(d *description) string {
	if d.Published == 0 {
		return "-"
	}
	return time.Unix(0, d.Published).Format(time.DateTime)
}
