package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fleet"
)

// fleetOptions are what the commands that steer a queue's workers have in common.
type fleetOptions struct {
	queue  string
	broker string
}

// fleetHelp is in the help of all of them.
const fleetHelp = `Workers are reached through their broker, on whatever machines they are.

` + brokerHelp

// define defines the flags of a command.
func (o *fleetOptions) define(cmd *cobra.Command) {
	brokerFlag(cmd, &o.broker, serveURL, sharedBrokers)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
}

// resolve checks the one argument.
func (o *fleetOptions) resolve(args []string, usage string) (err error) {
	if o.queue, err = oneName(args, "a queue", usage); err != nil {
		return err
	}
	return millrace.CheckQueue(o.queue)
}

// run does something with the workers, until this process is told to stop.
func (o *fleetOptions) run(ctx context.Context, do func(context.Context, *fleet.Fleet) error) (err error) {
	if err := checkShared(o.broker); err != nil {
		return err
	}
	signals := catchSignals()
	defer signals.release()
	ctx, end := signals.context(ctx)
	defer end()
	broker, err := openBroker(ctx, o.broker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Close()) }()
	f, err := fleet.Open(ctx, broker, o.queue)
	if err != nil {
		return o.explain(err)
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
		defer cancel()
		_ = f.Close(bounded) // what it leaves goes by itself, being ephemeral
	}()
	return o.explain(do(ctx, f))
}

// explain says what to do about an error.
func (o *fleetOptions) explain(err error) error {
	switch {
	case errors.Is(err, fleet.ErrNoQueue):
		return fmt.Errorf("there is no queue %s at this broker; the first millrace work %s or millrace map %s makes it", o.queue, o.queue, o.queue)
	case errors.Is(err, fleet.ErrNoWorker):
		return fmt.Errorf("no worker of %s answers: start one, on any machine, with millrace work %s -- COMMAND", o.queue, o.queue)
	case errors.Is(err, fleet.ErrNoReplica):
		return fmt.Errorf("no worker of %s has a replica: start some with millrace scale %s +1", o.queue, o.queue)
	}
	return err
}

// count is a number of things in words.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
