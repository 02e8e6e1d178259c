package jobs_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/nats"
	_ "github.com/millrace/millrace/driver/nsq"
	_ "github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

// tasks is how long the jobs are that everything happens to.
var tasks = flag.Int("tasks", 20_000, "tasks of a job")

// roleVariable says what this program is to be, in place of the tests.
const roleVariable = "MILLRACE_JOBS_ROLE"

// programs are the paths of what the tests run.
var programs struct{ millrace, rpc, nsqd, self string }

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	// Most of the time they wait for something, whatever the number of cores.
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err) // no such flag
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "millrace-jobs-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = buildAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func buildAll(dir string) (err error) {
	ctx := context.Background()
	if programs.millrace, err = node.BuildMillrace(ctx, dir); err != nil {
		return err
	}
	if programs.rpc, err = node.Build(ctx, dir, "examples/rpc"); err != nil {
		return err
	}
	if programs.nsqd, err = node.Tool(ctx, "nsqd"); err != nil {
		return err
	}
	programs.self, err = filepath.Abs(os.Args[0])
	return err
}

// roles are what this program can be in a process of its own.
var roles = map[string]func(args []string) error{
	"worker": beWorker,
	"nats":   beNATS,
}

// replicas are those of one worker, and taskTakes is what a task takes on average.
const (
	replicas  = 16
	taskTakes = 20 * time.Millisecond
)

// beWorker answers numbers with their squares, in a moment each, and drains on SIGTERM:
// URL QUEUE TTL. It says when it is ready. An
// input "sleep D N" takes that duration, "until F N" until there is a file of that name, and
// it says when it has taken one.
func beWorker(args []string) error {
	ttl, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	broker, err := millrace.Open(ctx, args[0])
	if err != nil {
		return err
	}
	w, err := worker.New(broker, args[1], worker.HandlerFunc(square), worker.Config{Replicas: replicas, Lease: ttl})
	if err != nil {
		return err
	}
	drained := make(chan error, 1)
	go func() {
		for errors.Is(w.Scale(ctx, replicas), worker.ErrNotServing) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		fmt.Fprintln(os.Stderr, "ready")
		<-ctx.Done()
		drained <- w.Drain(context.Background())
	}()
	err = w.Serve(context.Background())
	stop()
	if e := <-drained; !errors.Is(e, worker.ErrNotServing) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, broker.Close())
}

func square(ctx context.Context, t *worker.Task) ([]byte, error) {
	input := string(t.Payload)
	if rest, ok := strings.CutPrefix(input, "until "); ok {
		file, number, _ := strings.Cut(rest, " ")
		fmt.Fprintln(os.Stderr, "took", number)
		if err := untilThere(ctx, file); err != nil {
			return nil, err
		}
		input = number
	}
	takes := rand.N(2 * taskTakes)
	if rest, ok := strings.CutPrefix(input, "sleep "); ok {
		pause, number, _ := strings.Cut(rest, " ")
		d, err := time.ParseDuration(pause)
		if err != nil {
			return nil, worker.Permanent(err)
		}
		takes, input = d, number
		fmt.Fprintln(os.Stderr, "took", number)
	}
	n, err := strconv.Atoi(input)
	if err != nil {
		return nil, worker.Permanent(err)
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return strconv.AppendInt(nil, int64(n)*int64(n), 10), nil
}

func untilThere(ctx context.Context, file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// beNATS is a nats-server with JetStream: DIR PORT.
func beNATS(args []string) error {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	_, err = node.NATSServer(args[0], func(o *server.Options) { o.Port = port })
	if err != nil {
		return err
	}
	select {} // until it is killed
}
