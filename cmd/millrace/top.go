package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millrace/millrace/fleet"
)

// topEvery is how often the table is drawn anew.
const topEvery = time.Second

// topOptions are what the user asks of top.
type topOptions struct {
	fleetOptions
	once, json bool
}

func newTop() *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top QUEUE",
		Short: "Show a queue's replicas, on all machines",
		Long: `Top shows every replica of the workers of a queue, with its host and process, what it does,
its task and for how long it has run, the age of its last heartbeat, and how often it was
replaced; above them what waits in the queue, and how many tasks are answered each second.
A worker that has answered before and does no more is shown as silent.

On a terminal the table is refreshed each second until Ctrl-C; elsewhere it is printed once.
With --json it is an object with all that is known.

` + fleetHelp + `

Exit status: 0, or 255 when no worker answers or anything is wrong.`,
		Example: `  millrace top resize --broker nsq://queue.example:4150
  millrace top resize --json | jq '.workers[].replicas[] | select(.running_seconds > 60)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(args, "millrace top QUEUE"); err != nil {
				return err
			}
			return o.run(cmd.Context(), func(ctx context.Context, f *fleet.Fleet) error {
				return o.show(ctx, f, cmd.OutOrStdout())
			})
		},
	}
	o.define(cmd)
	cmd.Flags().BoolVar(&o.once, "once", false, "print it once, also on a terminal")
	cmd.Flags().BoolVar(&o.json, "json", false, "print all that is known, in JSON")
	return cmd
}

// show shows the queue until ctx ends, or once.
func (o *topOptions) show(ctx context.Context, f *fleet.Fleet, out io.Writer) error {
	if o.once || !term.IsTerminal(syscall.Stdout) {
		r, err := f.Report(ctx)
		if err != nil {
			return err
		}
		return o.print(out, &r)
	}
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		r, err := f.Report(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // as it was asked to
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		case err != nil:
			err = drawTop(out, fmt.Sprintf("%s: the broker does not answer: %s\n", o.queue, explain(err)))
		case o.json:
			err = printJSON(out, &r)
		case len(r.Workers) == 0:
			err = drawTop(out, topText(&r)+explain(o.explain(fleet.ErrNoWorker))+"\n")
		default:
			err = drawTop(out, topText(&r))
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// print prints one report, also one without workers, which is an error then.
func (o *topOptions) print(out io.Writer, r *fleet.Report) (err error) {
	if o.json {
		err = printJSON(out, r)
	} else {
		_, err = io.WriteString(out, topText(r))
	}
	if err == nil && r.Answered() == 0 {
		err = fleet.ErrNoWorker
	}
	return err
}
