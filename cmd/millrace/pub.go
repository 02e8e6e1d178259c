package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millrace/millrace"
)

// pubOptions are what the user asks of pub.
type pubOptions struct {
	topic   string
	command []string // of the sources; empty: standard input
	broker  string

	null    bool
	sources int
	ttl     time.Duration
}

func newPub() *cobra.Command {
	var (
		o   pubOptions
		ttl duration
	)
	cmd := &cobra.Command{
		Use:   "pub TOPIC [flags] [-- SOURCE [ARG]...]",
		Short: "Publish the lines of standard input, or of supervised commands",
		Long: `Pub publishes every line of standard input as a message of the topic: at once when the
lines come slowly, in batches when they come fast. Blank lines are left out.

With a command after -- the lines are those of that command's standard output. With -j N
it runs N times, and {%} in its arguments is the number of each, from 1. A command that
fails is started again after a while, which grows when it fails again and again; one that
exits with status 0 has finished, and pub ends when all have. With --ttl a line is also a
sign of life: a command that writes none for so long is killed, with its process group,
and started again. Waiting for the broker never counts as silence.

When the broker goes away later, or is full, pub waits and tries again, so that in the
worst case a message is published twice. What the broker refuses for good is an error.

Ctrl-C or SIGTERM ends the reading, and publishes what was read, for up to 5 seconds; twice
ends at once. Then the exit status is 255, and what was not published is counted.

` + brokerHelp,
		Example: `  tail -F access.log | millrace pub access
  find . -type f -print0 | millrace pub files -0 --broker amqp://user:pass@rabbit/
  millrace pub prices -j 3 --ttl 5s -- ./follow-exchange --shard {%}`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			own := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				own, o.command = args[:dash], args[dash:]
				if len(o.command) == 0 {
					return errors.New("write a command after the --, or leave it out to publish standard input")
				}
			}
			topic, err := oneName(own, "a topic", "millrace pub TOPIC")
			if err != nil {
				return err
			}
			o.topic, o.ttl = topic, time.Duration(ttl)
			if len(o.command) == 0 && (o.ttl > 0 || cmd.Flags().Changed("jobs")) {
				return errors.New("-j and --ttl are about commands: write one after --, as in: millrace pub TOPIC -j 3 --ttl 5s -- ./source")
			}
			if o.sources < 1 || o.sources > maxJobs {
				return flagError("jobs", "%d is not a number of commands to run", o.sources)
			}
			return runPub(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.sources, "jobs", "j", 1, "run the command `N` times at once")
	f.Var(&ttl, "ttl", "kill a command that writes no line for this `TIME`, and start it again (default never)")
	f.BoolVarP(&o.null, "null", "0", false, "lines end with a NUL byte in place of a newline")
	brokerFlag(cmd, &o.broker, serveURL, anyBroker)
	complete(cmd, "jobs")
	complete(cmd, "ttl")
	return cmd
}

// oneName returns the only argument, which must be a name.
func oneName(args []string, what, usage string) (string, error) {
	switch len(args) {
	case 0:
		return "", fmt.Errorf("write %s, as in: %s", what, usage)
	case 1:
		return args[0], millrace.CheckName(args[0])
	}
	return "", fmt.Errorf("unexpected %q: write one name, as in: %s", args[1], usage)
}

// runPub publishes until there is nothing more, or it is asked to end.
func runPub(ctx context.Context, o pubOptions) error {
	p := newPublishing(o)
	sources, err := p.newSources()
	if err != nil {
		return err
	}
	signals := catchSignals()
	defer signals.release()
	logDrivers(p.trouble.driver)
	if p.to, err = openOrStop(ctx, o.broker, signals); err != nil {
		return err
	}
	if len(o.command) == 0 && term.IsTerminal(syscall.Stdin) {
		p.say("the messages are read from the terminal, a line each; Ctrl-D ends them")
	}
	err = p.conduct(ctx, sources, signals.stop)
	return errors.Join(err, p.to.Close())
}

// say writes one line to standard error.
func (p *publishing) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "millrace: "+format+"\n", args...)
}
