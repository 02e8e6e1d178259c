package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/fleet"
)

func newPause() *cobra.Command {
	return newPausing("pause", "paused", (*fleet.Fleet).Pause, &cobra.Command{
		Short: "Let the workers of a queue take no more tasks",
		Long: `Pause makes the workers of a queue take no more tasks: what runs is finished and answered,
what was received beyond that is given back, and the rest waits, until millrace resume.

The queue stays paused when workers come and go, and when the broker is started again: it is
kept there, as a topic named QUEUE.paused. Consumers that are not Millrace's workers do not
look at that.

` + fleetHelp + `

Exit status: 0 when the queue is paused and no worker takes tasks, 255 when not all that
are known have confirmed it, or anything is wrong.`,
	})
}

func newResume() *cobra.Command {
	return newPausing("resume", "resumed", (*fleet.Fleet).Resume, &cobra.Command{
		Short: "Let the workers of a paused queue take tasks again",
		Long: `Resume ends what millrace pause began: the workers of the queue take tasks again. One that
does not hear of it finds out within some seconds. A queue that is not paused stays as it is.

` + fleetHelp + `

Exit status: 0 when the queue is not paused any more, 255 when not all workers that are known
have confirmed it, or anything is wrong.`,
	})
}

// newPausing is what the two have in common.
func newPausing(verb, done string, do func(*fleet.Fleet, context.Context) ([]fleet.Worker, error), cmd *cobra.Command) *cobra.Command {
	var o fleetOptions
	cmd.Use = verb + " QUEUE"
	cmd.Example = "  millrace " + verb + " resize --broker nsq://queue.example:4150"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.resolve(args, "millrace "+verb+" QUEUE"); err != nil {
			return err
		}
		return o.run(cmd.Context(), func(ctx context.Context, f *fleet.Fleet) error {
			confirmed, err := do(f, ctx)
			if err != nil && len(confirmed) == 0 {
				return err
			}
			return errors.Join(o.tellPaused(cmd.OutOrStdout(), done, confirmed), err)
		})
	}
	o.define(cmd)
	return cmd
}

// tellPaused says in one line what the workers do now.
func (o *fleetOptions) tellPaused(out io.Writer, done string, confirmed []fleet.Worker) error {
	line := fmt.Sprintf("%s is %s: %s", o.queue, done, count(len(confirmed), "worker", "workers"))
	running := 0
	for i := range confirmed {
		running += confirmed[i].Busy
	}
	switch {
	case len(confirmed) == 0:
		line = fmt.Sprintf("%s is %s, for workers to come: none answers now", o.queue, done)
	case running > 0 && done == "paused":
		line += fmt.Sprintf("; %s still", count(running, "task runs", "tasks run"))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}
