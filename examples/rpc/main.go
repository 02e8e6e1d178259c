// Command rpc shows scatter–gather RPC. Two clients send requests to one queue, two
// servers answer, and each client gathers exactly its own answers by their request ids.
// On the way one request fails, one takes too long, and one kills the server that takes
// it: the broker gives that request, and whatever else the server held, to the other.
//
//	rpc                            all of it in this process
//	rpc -broker URL -role server   a server, anywhere
//	rpc -broker URL -role client   a client, anywhere
//
// The last two need a broker that several processes can share.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded" // mem: and file:
	_ "github.com/millrace/millrace/driver/nats"     // nats:
	_ "github.com/millrace/millrace/driver/nsq"      // nsq: and nsqlookupd:
	_ "github.com/millrace/millrace/driver/rabbitmq" // amqp: and amqps:
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func main() {
	broker := flag.String("broker", "mem:", "the broker's URL")
	role := flag.String("role", "all", "all, server or client")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *broker, *role)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rpc:", err)
		os.Exit(1)
	}
}

// queue is where the requests go.
const queue = "squares"

// request asks for the square of N, or for trouble.
type request struct {
	Client  string
	N       int
	Trouble string // "", or one of those below
}

const (
	fail  = "fail"  // the server answers with an error
	sleep = "sleep" // the server takes longer than the client gives it
	crash = "crash" // the first server that takes it dies
)

type response struct {
	Client string
	Square int
}

func run(ctx context.Context, out io.Writer, brokerURL, role string) error {
	if !slices.Contains([]string{"all", "server", "client"}, role) {
		return fmt.Errorf("-role %s: write all, server or client", role)
	}
	if role != "all" && brokerURL == "mem:" {
		return fmt.Errorf("-role %s: mem: is a broker inside this process; give the -broker that the others use", role)
	}
	broker, err := millrace.Open(ctx, brokerURL)
	if err != nil {
		return err
	}
	defer func() { _ = broker.Close() }()
	switch role {
	case "server":
		s := server{broker: broker, crash: func() { os.Exit(1) }}
		return s.serve(ctx)
	case "client":
		return ask(ctx, broker, out, fmt.Sprintf("client-%d", os.Getpid()))
	}
	return all(ctx, broker, out)
}

// all runs two servers and two clients.
func all(ctx context.Context, broker millrace.Broker, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	var servers sync.WaitGroup
	defer servers.Wait()
	defer stop()
	var crashed atomic.Bool
	for i := range 2 {
		ctx, die := context.WithCancel(ctx)
		s := server{broker: broker, crash: func() {
			if crashed.CompareAndSwap(false, true) {
				_, _ = fmt.Fprintf(out, "server %d crashes\n", i+1)
				die()
				<-ctx.Done()
			}
		}}
		servers.Go(func() { _ = s.serve(ctx) })
	}
	var clients sync.WaitGroup
	errs := make([]error, 2)
	for i, name := range []string{"alice", "bob"} {
		clients.Go(func() { errs[i] = ask(ctx, broker, out, name) })
	}
	clients.Wait()
	return errors.Join(errs...)
}

// server answers requests with a few replicas. It crashes when it is the first that takes a
// request which asks for that.
type server struct {
	broker millrace.Broker
	crash  func()
}

func (s *server) serve(ctx context.Context) error {
	answer := worker.Func(s.answer)
	handler := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		return answer.Handle(context.WithValue(ctx, attempt{}, t.Attempt), t)
	})
	w, err := worker.New(s.broker, queue, handler, worker.Config{Replicas: 4, Lease: 5 * time.Second})
	if err != nil {
		return err
	}
	return w.Serve(ctx)
}

// attempt is the key of the attempt in the context of an answer.
type attempt struct{}

func (s *server) answer(ctx context.Context, r request) (response, error) {
	switch r.Trouble {
	case fail:
		return response{}, worker.Permanent(fmt.Errorf("%d has no square today", r.N))
	case sleep:
		<-ctx.Done()
		return response{}, context.Cause(ctx)
	case crash:
		if ctx.Value(attempt{}) == 1 {
			s.crash()
		}
		if ctx.Err() != nil {
			return response{}, context.Cause(ctx)
		}
	}
	return response{r.Client, r.N * r.N}, nil
}

// ask sends twelve requests and gathers their responses.
func ask(ctx context.Context, broker millrace.Broker, out io.Writer, name string) error {
	client, err := gather.New(ctx, broker, queue, gather.Config{Timeout: 500 * time.Millisecond, Retries: -1})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()
	requests := make([]request, 12)
	for i := range requests {
		requests[i] = request{Client: name, N: i}
	}
	requests[3].Trouble, requests[5].Trouble, requests[7].Trouble = fail, sleep, crash

	report := fmt.Sprintf("%s:\n", name)
	for r, err := range gather.MapOrdered[response](ctx, client, slices.Values(requests)) {
		var failed *gather.TaskError
		switch {
		case errors.As(err, &failed):
			report += fmt.Sprintf("  request %d: %s: %s\n", r.Index, failed.Kind, failed.Message)
		case err != nil:
			return err
		case r.Value.Client != name:
			return fmt.Errorf("%s got an answer that was meant for %s", name, r.Value.Client)
		default:
			report += fmt.Sprintf("  request %d: %d\n", r.Index, r.Value.Square)
		}
	}
	_, err = io.WriteString(out, report)
	return err
}
