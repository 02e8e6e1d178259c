// Command bench prints the table of speeds: Millrace, the real nsqd, and the ceilings,
// side by side in one run. Run it in the module's folder:
//
//	go run ./bench
//	go run ./bench -scale
//
// Every server is a process of its own, on a fresh directory for each measurement, and so
// is every load: NSQ's bench_writer and bench_reader, and where those cannot do it, this
// program. The contestants of a row take turns, A B C A B C, and the table has medians;
// the range stands behind each.
//
// The rows about tasks have one more server, RabbitMQ, which must be installed, and nats-server.
//
// The ceilings: a server that answers OK to everything, one that only sends messages it
// has prepared, one that does both, and a loop that appends as many bytes as a batch has to a file and syncs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// setup is how the whole run goes.
type setup struct {
	runs   int           // turns for each contestant
	length time.Duration // of each measurement
	dir    string        // where the servers have their data
	only   *regexp.Regexp

	backlog int // messages, of the measurements of size

	millrace, nsqd, writer, reader string // programs
}

func main() {
	// This program is also the servers and loads that it starts.
	if len(os.Args) > 1 {
		if part := parts[os.Args[1]]; part != nil {
			exit(part(os.Args[2:]))
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	exit(run(ctx))
}

// parts are what this program does in processes of its own.
var parts = map[string]func(args []string) error{
	"ok-server":      serveOK,
	"message-server": serveMessages,
	"passing-server": servePassing,
	"latency":        measureLatency,
	"topics":         publishToTopics,
	"echo-tasks":     echoTasks,
	"ask-tasks":      askTasks,
	"echo-nsq":       echoNSQ,
	"ask-nsq":        askNSQ,
	"echo-amqp":      echoAMQP,
	"ask-amqp":       askAMQP,
	"nats-server":    serveNATS,
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context) error {
	var s setup
	var only string
	flag.IntVar(&s.runs, "runs", 3, "turns for each contestant")
	flag.DurationVar(&s.length, "for", 3*time.Second, "length of each measurement")
	flag.StringVar(&s.dir, "dir", "", "where the servers have their data, on the disk to measure (default: a temporary directory)")
	flag.IntVar(&s.backlog, "backlog", 50_000_000, "messages of the backlog, with -scale")
	size := flag.Bool("scale", false, "measure what large amounts cost instead: it takes minutes, and 25 GB of the disk")
	flag.StringVar(&only, "only", "", "regular expression: the rows to run")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	temp, err := os.MkdirTemp(s.dir, "millrace-bench-")
	if err != nil {
		return err
	}
	s.dir = temp
	err = s.build(ctx)
	switch {
	case err != nil:
	case *size:
		err = s.scale(ctx)
	default:
		err = s.table(ctx)
	}
	return errors.Join(err, os.RemoveAll(temp))
}

// table runs the rows and prints each when it is done.
func (s *setup) table(ctx context.Context) error {
	title := fmt.Sprintf("medians of %d runs of %v each, 200-byte messages; (least – most)\n", s.runs, s.length)
	for _, r := range append(s.rows(), s.taskRows()...) {
		if !s.only.MatchString(r.name) {
			continue
		}
		fmt.Print(title)
		title = ""
		if err := s.measure(ctx, &r); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		fmt.Print(r.text())
	}
	return nil
}
