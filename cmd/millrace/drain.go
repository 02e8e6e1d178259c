package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/fleet"
)

func newDrain() *cobra.Command {
	var o fleetOptions
	cmd := &cobra.Command{
		Use:   "drain QUEUE",
		Short: "Let every worker of a queue finish its tasks and end",
		Long: `Drain makes every worker of a queue take nothing new, finish what it runs, publish the
results, give back the rest and end with exit status 0, and waits until all have. What waits
in the queue stays there. Interrupted, it leaves them to it.

Workers that are started meanwhile are not drained, nor are those that a supervisor starts
again: tell it first, or use millrace pause.

` + fleetHelp + `

Exit status: 0 when all have ended, 255 when not all have, or anything is wrong.`,
		Example: "  millrace drain resize --broker nsq://queue.example:4150",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(args, "millrace drain QUEUE"); err != nil {
				return err
			}
			return o.run(cmd.Context(), func(ctx context.Context, f *fleet.Fleet) error {
				d, err := f.Drain(ctx)
				return errors.Join(o.tellDrained(cmd.OutOrStdout(), &d), err)
			})
		},
	}
	o.define(cmd)
	return cmd
}

// tellDrained says in one line how far it got.
func (o *fleetOptions) tellDrained(out io.Writer, d *fleet.Drained) (err error) {
	if len(d.Ended)+len(d.Draining) == 0 {
		return nil
	}
	line := fmt.Sprintf("%s: %s", o.queue, count(len(d.Ended), "worker has ended", "workers have ended"))
	if n := len(d.Draining); n > 0 {
		running := 0
		for i := range d.Draining {
			running += d.Draining[i].Busy
		}
		line += fmt.Sprintf(", %d more when %s finished", n, count(running, "task has", "tasks have"))
	}
	_, err = fmt.Fprintln(out, line)
	return err
}
