package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/fleet"
)

func newRetire() *cobra.Command {
	var o fleetOptions
	cmd := &cobra.Command{
		Use:   "retire QUEUE",
		Short: "Make one replica of a queue leave after its task: the poison pill",
		Long: `Retire makes exactly one replica of a queue, somewhere, finish the task it is on and leave.
It is not replaced. An idle one is preferred. The command names it, so that a message which
the broker delivers twice does no harm.

` + fleetHelp + `

Exit status: 0 when the replica's worker has confirmed it, 255 for everything else.`,
		Example: "  millrace retire resize --broker nsq://queue.example:4150",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(args, "millrace retire QUEUE"); err != nil {
				return err
			}
			return o.run(cmd.Context(), func(ctx context.Context, f *fleet.Fleet) error {
				r, err := f.Retire(ctx)
				if err != nil {
					return err
				}
				return o.tellRetired(cmd.OutOrStdout(), &r)
			})
		},
	}
	o.define(cmd)
	return cmd
}

// tellRetired says in one line which replica it is.
func (o *fleetOptions) tellRetired(out io.Writer, r *fleet.Retired) error {
	what := "has left"
	if r.Finishes {
		what = fmt.Sprintf("leaves after its task, which it has run for %s", age(r.Replica.Running))
	}
	_, err := fmt.Fprintf(out, "%s: replica %d of %s %s\n", o.queue, r.Replica.Number, plain(r.Worker.Name()), what)
	return err
}
