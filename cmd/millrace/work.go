package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

// workOptions are what the user asks of work.
type workOptions struct {
	queue   string
	command []string
	broker  string

	jobs    int
	stdin   bool
	ttl     time.Duration
	timeout time.Duration
	grace   time.Duration
	retries int
}

// The defaults of work's flags.
const (
	defaultTTL = millrace.DefaultLease
	// defaultGrace is less than what Kubernetes and systemd wait before they kill.
	defaultGrace = 25 * time.Second
)

func newWork() *cobra.Command {
	var (
		o                   workOptions
		jobs                string
		ttl, timeout, grace = duration(defaultTTL), duration(0), duration(defaultGrace)
	)
	cmd := &cobra.Command{
		Use:   "work QUEUE [flags] -- COMMAND [ARG]...",
		Short: "Answer the tasks of a queue by running a command for each, on any machine",
		Long: `Work runs the command for the tasks of a queue, several at a time, and publishes what
it writes as their results. Run it on as many machines as you like: a task goes to one of
them, and to another one when that dies. millrace map QUEUE is who asks.

In the command, {} and its kin stand for the input, as in millrace map. A task that fails
is tried again, wherever there is a free worker; what is out of attempts is answered with
the error, and kept as a dead letter (millrace dead QUEUE).

--ttl is how long this process may hang before its tasks are given to others: while it
lives it extends the leases of the tasks that it is really running, and of nothing else.
A command that runs is alive; --timeout bounds one that hangs.

On SIGTERM or Ctrl-C it takes nothing new, lets the running tasks finish, publishes their
results and ends; after --grace, or on a second signal, it kills what still runs and gives
it back to the queue. With no worker alive, tasks wait.

` + brokerHelp + `

Exit status: 0 when all that ran was finished, 255 for everything else.`,
		Example: `  millrace work hash --broker nsq://queue.example:4150 -j 8 -- ./hash {}
  millrace work resize --broker amqp://user:pass@rabbit/ --timeout 1m -- convert {} {.}.png
  millrace work parse --stdin -- jq .name`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := o.arguments(args, cmd.ArgsLenAtDash()); err != nil {
				return err
			}
			if o.jobs, err = parseJobs(jobs, runtime.GOMAXPROCS(0)); err != nil {
				return fmt.Errorf("--jobs: %w", err)
			}
			o.ttl, o.timeout, o.grace = time.Duration(ttl), time.Duration(timeout), time.Duration(grace)
			switch {
			case o.ttl < minTTL:
				return fmt.Errorf("--ttl: %v is too short to tell a worker that hangs from one that is busy; write %v or more", o.ttl, minTTL)
			case !cmd.Flags().Changed("retries"):
				o.retries = 0 // package worker's default
			case o.retries < 0:
				return fmt.Errorf("--retries: %d is not a number of times", o.retries)
			case o.retries == 0:
				o.retries = -1 // package worker's word for never
			}
			return runWork(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&jobs, "jobs", "j", "100%", "run `N` tasks at the same time; N% of the cores, +N or -N")
	f.BoolVar(&o.stdin, "stdin", false, "pass the input on the command's standard input")
	f.Var(&ttl, "ttl", "give the tasks to others when this process hangs for this `TIME`")
	f.Var(&timeout, "timeout", "kill an attempt, with its whole process group, after this `TIME`, unless the task says otherwise")
	f.Var(&grace, "grace", "when told to stop, let the running tasks finish for this `TIME`")
	f.IntVar(&o.retries, "retries", 3, "try a task that failed again, up to `N` times, unless the task says otherwise")
	brokerFlag(cmd, &o.broker, serveURL, sharedBrokers)
	for _, flag := range []string{"jobs", "ttl", "timeout", "grace", "retries"} {
		complete(cmd, flag)
	}
	return cmd
}

// arguments takes the queue and the command apart. dash is how many arguments stand before
// --, -1 without one.
func (o *workOptions) arguments(args []string, dash int) error {
	own := args
	if dash >= 0 {
		own, o.command = args[:dash], args[dash:]
	}
	switch {
	case len(own) == 0:
		return errors.New("no queue: write its name first, as in: millrace work hash -- ./hash {}")
	case len(own) > 1:
		return fmt.Errorf("unexpected %q: a command follows after --, as in: millrace work %s -- %s", own[1], own[0], quote(own[1:]))
	case len(o.command) == 0:
		return fmt.Errorf("no command: write one after --, as in: millrace work %s -- ./command {}", own[0])
	}
	o.queue = own[0]
	if err := millrace.CheckQueue(o.queue); err != nil {
		return err
	}
	return checkReplacements(o.command, 1)
}

// hostname is this machine's, for those who look at its workers from elsewhere.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
