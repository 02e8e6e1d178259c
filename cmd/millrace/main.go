// Command millrace spreads work over supervised workers and gets every answer back.
//
//	seq 1 1000 | millrace map -- factor {}
//
// `millrace help` lists the commands, `millrace map --help` has examples.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	_ "github.com/millrace/millrace/driver/nats"     // nats:
	_ "github.com/millrace/millrace/driver/nsq"      // nsq: and nsqlookupd:
	_ "github.com/millrace/millrace/driver/rabbitmq" // amqp: and amqps:
)

// exitOther is the exit status of everything that is wrong but failed tasks.
const exitOther = 255

// exitPipe is the exit status when nobody reads standard output any more, as in
// `| head`: what a shell reports of a program that SIGPIPE ended.
const exitPipe = 128 + int(syscall.SIGPIPE)

// status is returned by a command that wants an exit status other than 0, and has
// said all there is to say.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	if calledNSQD(os.Args[0]) {
		os.Exit(runNSQD(context.Background(), os.Args[1:]))
	}
	os.Exit(run(context.Background(), os.Args[1:]))
}

// run runs the command line and returns the exit status.
func run(ctx context.Context, args []string) int {
	logDrivers(sayRecord)
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "millrace: "+explain(err))
	return exitOther
}

// explain writes an error in one line. The packages' names in it tell a user nothing.
func explain(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	for _, name := range []string{"millrace", "broker", "worker", "gather", "task", "door", "fleet", "nsq", "rabbitmq", "nats"} {
		text = strings.TrimPrefix(strings.ReplaceAll(text, ": "+name+": ", ": "), name+": ")
	}
	return text
}
