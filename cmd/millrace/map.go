package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/task"
)

// inputLimit is the most bytes of one input: what a broker takes, less room for headers.
const inputLimit = broker.DefaultMaxMessage - 4<<10

// minTTL is the shortest --ttl.
const minTTL = 100 * time.Millisecond

// mapOptions are what the user asks of map.
type mapOptions struct {
	queue   string
	command []string // empty: workers elsewhere do it
	sources []source
	broker  string

	jobs      int
	keepOrder bool
	null      bool
	stdin     bool
	timeout   time.Duration
	ttl       time.Duration
	retries   int // -1: not said
	halt      haltRule
	haltText  string
	bar       bool
	tag       bool
	dryRun    bool
}

func newMap() *cobra.Command {
	var (
		o                mapOptions
		jobs, halt       string
		timeout, ttl     duration
		files            []string
		cores            = runtime.GOMAXPROCS(0)
		noSuchCompletion = cobra.NoFileCompletions
	)
	cmd := &cobra.Command{
		Use: `map [flags] -- COMMAND [ARG]... [::: INPUT]...
  millrace map QUEUE --broker URL [flags] [::: INPUT]...`,
		Short: "Run a command for every input and gather the results",
		Long: `Map runs the command once for every line of standard input, several at a time, and
writes what each writes to standard output, whole and as soon as it is there.

With a QUEUE and no command, the inputs are tasks for whoever answers that queue: see
millrace work. Then Ctrl-C cancels what was not answered, and without --retries it is the
workers' setting that holds.

In the command, {} stands for the input, {.} for the input without its extension,
{/} for its base name, {//} for its directory, {/.} for its base name without
extension, {#} for its number and {%} for the number of the replica that runs it.
Without any of them, and without --stdin, the input is appended as the last
argument. With several sources of inputs ({1}, {2}, ...) every combination is run.
No shell is involved: write sh -c '...' where one is wanted.

A task that fails is reported in one line, and tried again with --retries. A command
that is killed by somebody else is run again in any case, up to 10 times in all.

The running process is a command's sign of life: --timeout is what bounds one that
hangs, --ttl is not. What is killed is its process group; a process that left it
(setsid, a daemon) lives on. One that stays in the group and holds the command's
output open fails the task 2 seconds after the command's end: redirect its output.

An input may have up to 64 MiB, less 4 KiB (as an argument, what the kernel allows,
else use --stdin), and a result, what the command writes to standard output, 63 MiB.

Without a broker the tasks are in memory. What a run that was killed leaves in a directory
is dropped by the next one.

` + brokerHelp + `

Exit status: the number of tasks that failed, 101 when there are more, 141 when
nobody reads standard output any more, as with | head, and 255 for everything else
that is wrong. Ctrl-C once lets the running tasks finish, twice kills them.`,
		Example: `  seq 1 1000 | millrace map -- factor {}
  millrace map -k -- convert {} {.}.png ::: *.jpg
  find . -name '*.log' -print0 | millrace map -0 --timeout 30s --retries 2 -- gzip
  millrace map --stdin --tag -a requests.json -- jq .name
  millrace map --halt now,fail=1 -- ./test --seed {1} --size {2} ::: 1 2 3 ::: S L
  millrace map hash --broker nsq://queue.example:4150 -a inputs
  millrace map --broker file:///var/lib/jobs -a urls -- sh -c 'curl -fsS "$1" | wc -c' sh {}`,
		ValidArgsFunction: noSuchCompletion,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := o.arguments(args, cmd.ArgsLenAtDash(), files); err != nil {
				return err
			}
			for _, flag := range []string{"jobs", "stdin", "ttl"} {
				if len(o.command) == 0 && cmd.Flags().Changed(flag) {
					return fmt.Errorf("--%s is about a command, and there is none: it is for millrace work %s to say", flag, o.queue)
				}
			}
			if o.jobs, err = parseJobs(jobs, cores); err != nil {
				return fmt.Errorf("--jobs: %w", err)
			}
			if o.halt, err = parseHalt(halt); err != nil {
				return fmt.Errorf("--halt: %w", err)
			}
			o.haltText, o.timeout, o.ttl = halt, time.Duration(timeout), time.Duration(ttl)
			switch {
			case o.ttl != 0 && o.ttl < minTTL:
				return fmt.Errorf("--ttl: %v is too short to tell a worker that hangs from one that is busy; write %v or more", o.ttl, minTTL)
			case !cmd.Flags().Changed("retries"):
				o.retries = -1
			case o.retries < 0:
				return fmt.Errorf("--retries: %d is not a number of times", o.retries)
			}
			if o.dryRun {
				return o.printCommands(os.Stdout)
			}
			return runMap(cmd.Context(), o)
		},
	}
	cmd.SetFlagErrorFunc(mapFlagError)
	f := cmd.Flags()
	f.StringVarP(&jobs, "jobs", "j", "100%", "run `N` tasks at the same time; N% of the cores, +N or -N")
	f.BoolVarP(&o.keepOrder, "keep-order", "k", false, "write the results in the order of the inputs")
	f.BoolVarP(&o.null, "null", "0", false, "inputs end with a NUL byte in place of a newline")
	f.StringArrayVarP(&files, "arg-file", "a", nil, "read the inputs from `FILE` (- is standard input)")
	f.BoolVar(&o.stdin, "stdin", false, "pass the input on the command's standard input")
	f.Var(&timeout, "timeout", "kill an attempt, with its whole process group, after this `TIME`")
	f.Var(&ttl, "ttl", "give a task to somebody else when the whole worker, not its command, hangs for this `TIME` (default 30s)")
	f.IntVar(&o.retries, "retries", 0, "try a task that failed again, up to `N` times")
	f.StringVar(&halt, "halt", "never", "end early by this `RULE`: now or soon, then fail=, success= or done=, then N or N%")
	f.BoolVar(&o.bar, "bar", false, "show the progress bar also when standard error is not a terminal")
	f.BoolVar(&o.tag, "tag", false, "begin every line of output with the input and a tab")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the commands without running them")
	brokerFlag(cmd, &o.broker, "", anyBroker)
	complete(cmd, "halt", "never", "now,fail=1", "soon,fail=1", "soon,fail=10%", "now,success=1")
	for _, flag := range []string{"jobs", "timeout", "ttl", "retries"} {
		complete(cmd, flag)
	}
	return cmd
}

// complete has the shell offer these values for a flag, and no file names.
func complete(cmd *cobra.Command, flag string, values ...string) {
	completion := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
	if err := cmd.RegisterFlagCompletionFunc(flag, completion); err != nil {
		panic(err) // no such flag
	}
}

// arguments takes the positional arguments apart. dash is how many stand before --,
// -1 without one.
func (o *mapOptions) arguments(args []string, dash int, files []string) error {
	own := args
	if dash >= 0 {
		own, o.command = args[:dash], args[dash:]
	}
	if err := checkSeparators(args); err != nil {
		return err
	}
	var lists []source
	if slices.ContainsFunc(own, isSeparator) {
		own, lists = cutSources(own)
		if dash >= 0 {
			return errors.New("write the ::: after the command: millrace map -- COMMAND ::: INPUT")
		}
	} else {
		o.command, lists = cutSources(o.command)
	}
	switch {
	case len(own) > 1:
		return fmt.Errorf("unexpected %q: a command follows after --, as in: millrace map -- %s", own[1], quote(own))
	case len(own) == 1:
		o.queue = own[0]
		if err := millrace.CheckQueue(o.queue); err != nil {
			return fmt.Errorf("%w; if it is the command, put -- before it: millrace map -- COMMAND", err)
		}
	}
	for _, file := range files {
		o.sources = append(o.sources, source{file: file})
	}
	o.sources = append(o.sources, lists...)
	for i, s := range o.sources {
		if i > 0 && s.file == "-" {
			return errors.New("-: standard input can only be the first source of inputs")
		}
	}
	if len(o.sources) == 0 {
		o.sources = []source{{file: "-"}}
	}
	if err := checkReplacements(o.command, len(o.sources)); err != nil {
		return err
	}
	if o.stdin && len(o.sources) > 1 {
		return errors.New("--stdin takes one source of inputs, not several")
	}
	return o.checkWhoWorks()
}

// checkWhoWorks refuses a job that nobody would ever do.
func (o *mapOptions) checkWhoWorks() error {
	if len(o.command) > 0 {
		return nil
	}
	example := "millrace map -- COMMAND"
	switch {
	case o.queue == "":
		return errors.New("no command: write one after --, as in: seq 1 1000 | millrace map -- factor {}")
	case o.dryRun:
		return fmt.Errorf("--dry-run prints commands, and there is none: %s", example)
	case o.broker == "":
		return fmt.Errorf("put -- before the command: millrace map -- %s; or if %s is a queue that workers answer elsewhere, say where with --broker", quote([]string{o.queue}), o.queue)
	case oneProcess(o.broker):
		scheme, _, _ := strings.Cut(o.broker, ":")
		return fmt.Errorf("no command, and a %s: broker is this process's alone, so no other worker can take from the queue %q: write the command after --, as in: %s", scheme, o.queue, example)
	}
	return nil
}

// newCommand returns the handler that runs the command.
func (o *mapOptions) newCommand() (*task.Command, error) {
	return task.New(o.command, task.Config{Stdin: o.stdin, Sources: len(o.sources)})
}

// newInputs returns the inputs, which are not read yet.
func (o *mapOptions) newInputs() *inputs {
	in := &inputs{sources: o.sources, delimiter: '\n', limit: inputLimit, stop: make(chan struct{})}
	if o.null {
		in.delimiter = 0
	}
	return in
}
