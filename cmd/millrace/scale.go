package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/fleet"
)

const scaleUsage = "millrace scale QUEUE {+N | -N | =N}"

// minus is a number of replicas that are to leave, which pflag would take for a flag.
var minus = regexp.MustCompile(`^-[0-9]+$`)

func newScale() *cobra.Command {
	var o fleetOptions
	cmd := &cobra.Command{
		Use:   "scale QUEUE {+N | -N | =N}",
		Short: "Start and retire replicas of a queue, across all machines",
		Long: `Scale starts replicas, or makes some leave, until the workers of a queue have as many as
you say: +2 is two more, -1 one less, =5 five in all. New ones are started where there are
the fewest a core; those that leave do so where there are the most, idle ones first, and
busy ones after their tasks. With =0 tasks wait until there are replicas again.

The numbers are not kept: a worker that is started again has those of its -j.

` + fleetHelp + `

Exit status: 0 when the workers have confirmed it, 255 when not all have, or anything is
wrong; then it says what was changed.`,
		Example: `  millrace scale resize +2 --broker nsq://queue.example:4150
  millrace scale resize -1
  millrace scale resize =0`,
		DisableFlagParsing: true, // see minus
	}
	o.define(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		args, err := parseWithMinus(cmd, args)
		if errors.Is(err, pflag.ErrHelp) {
			return cmd.Help()
		} else if err != nil {
			return badFlag(cmd, err)
		}
		change, err := o.scaleArguments(args)
		if err != nil {
			return err
		}
		return o.run(cmd.Context(), func(ctx context.Context, f *fleet.Fleet) error {
			s, err := f.Scale(ctx, change)
			return errors.Join(o.tellScaled(cmd.OutOrStdout(), s, err), err)
		})
	}
	return cmd
}

// parseWithMinus parses the flags and returns the arguments, negative numbers among them.
func parseWithMinus(cmd *cobra.Command, args []string) (rest []string, err error) {
	var numbers, others []string
	for i, arg := range args {
		if arg == "--" {
			others = append(others, args[i:]...)
			break
		}
		if minus.MatchString(arg) {
			numbers = append(numbers, arg)
		} else {
			others = append(others, arg)
		}
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.Flags().Parse(others); err != nil {
		return nil, err
	}
	if help, err := cmd.Flags().GetBool("help"); help || err != nil {
		return nil, errors.Join(pflag.ErrHelp, err)
	}
	return append(cmd.Flags().Args(), numbers...), nil
}

// scaleArguments takes the queue and the change apart.
func (o *fleetOptions) scaleArguments(args []string) (c fleet.Change, err error) {
	if len(args) == 0 {
		return c, fmt.Errorf("write a queue and how many replicas, as in: %s", scaleUsage)
	}
	if err := o.resolve(args[:1], scaleUsage); err != nil {
		return c, err
	}
	switch len(args) {
	case 1:
		return c, fmt.Errorf("how many replicas? write %s", strings.ReplaceAll(scaleUsage, "QUEUE", o.queue))
	case 2:
		return fleet.ParseChange(args[1])
	}
	return c, fmt.Errorf("unexpected %q: write one change, as in: %s", args[2], scaleUsage)
}

// tellScaled says in one line what was changed.
func (o *fleetOptions) tellScaled(out io.Writer, s fleet.Scaled, err error) error {
	if len(s.Changes) == 0 {
		if err == nil {
			_, err = fmt.Fprintf(out, "%s has %s, as before\n", o.queue, count(s.After, "replica", "replicas"))
			return err
		}
		return nil
	}
	var where []string
	for _, c := range s.Changes {
		where = append(where, fmt.Sprintf("%s %d→%d", plain(c.Worker.Name()), c.From, c.To))
	}
	line := fmt.Sprintf("%s has %s in place of %d: %s", o.queue, count(s.After, "replica", "replicas"), s.Before, strings.Join(where, ", "))
	if n := s.Leaving(); n > 0 {
		line += fmt.Sprintf("; %s a task before leaving", count(n, "finishes", "finish"))
	}
	_, err = fmt.Fprintln(out, line)
	return err
}
