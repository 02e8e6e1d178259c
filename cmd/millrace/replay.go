package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

// replayOptions are what the user asks of replay.
type replayOptions struct {
	topic, channel string
	broker         string
	from           string
}

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay TOPIC CHANNEL --from FROM",
		Short: "Deliver the messages of a channel again",
		Long: `Replay delivers again all messages of a topic from one on, to the consumers of one of its
channels: those that were finished, and those that were emptied too. What is in flight from
there on is taken from those who hold it. Other channels, and what is older, stay as they
are. It goes back as far as the broker still has the messages: see millrace serve --retain.

` + fromHelp + `

` + brokerHelp + `
Only millrace serve, one at a time, and a directory can do this; it is asked over HTTP.`,
		Example: `  millrace replay orders billing --from 1h
  millrace replay orders billing --from 2026-01-31T12:00:00Z
  millrace replay orders billing --from 1`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			const usage = "millrace replay TOPIC CHANNEL --from 1h"
			if o.topic, o.channel, err = topicAndChannel(args, usage); err != nil {
				return err
			}
			if o.channel == "" {
				return errors.New("write a channel, as in: " + usage)
			}
			if o.from == "" {
				return errors.New("--from: say from which message on, as in: " + usage)
			}
			return runReplay(cmd.Context(), &o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "deliver again all messages `FROM` there on")
	brokerFlag(cmd, &o.broker, serveURL, shownBrokers)
	complete(cmd, "from", "1h", "24h")
	return cmd
}

func runReplay(ctx context.Context, o *replayOptions, out io.Writer) (err error) {
	a, err := openAPI(o.broker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	var back struct {
		From     uint64
		Messages int64
		Cut      bool
	}
	params := url.Values{"topic": {o.topic}, "channel": {o.channel}, "from": {o.from}}
	if err := a.post(ctx, "/channel/replay", params, &back); err != nil {
		return err
	}
	text := fmt.Sprintf("%d messages come again, from %016x on", back.Messages, back.From)
	switch {
	case back.Messages == 0:
		text = "no messages come again"
	case back.Messages == 1:
		text = fmt.Sprintf("1 message comes again, from %016x on", back.From)
	}
	if back.Cut {
		text += "; what was before that, the broker does not have any more"
	}
	_, err = fmt.Fprintln(out, text)
	return err
}
