package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

const (
	// brokerVariable is the environment variable that stands in for --broker.
	brokerVariable = "MILLRACE_BROKER"
	// tokenVariable is the one with the token that is shown to the broker. A flag would show
	// it to everybody who can list processes.
	tokenVariable = "MILLRACE_TOKEN"
	// serveURL is where millrace serve listens unless it is told otherwise.
	serveURL = "nsq://127.0.0.1:4150"
)

// brokerHelp is in the help of every command that has a broker.
const brokerHelp = `--broker, or else $` + brokerVariable + `, is the URL of the broker:

  nsq://HOST:PORT           millrace serve, or nsqd, at its TCP address
  nsqlookupd://HOST:PORT    those that an nsqlookupd knows
  amqp://USER:PASS@HOST/    RabbitMQ
  nats://HOST:PORT          NATS JetStream
  file:///DIR               a directory, where one process at a time is enough

For TLS write amqps://, or add ?tls=true to nsq:// and nats://; ca=FILE names the authorities
that sign the broker's certificate. The HTTP API of nsq:// is at the next port, with TLS at
the one after that, unless ?http=PORT says where. A token for nsq:// is taken from $` + tokenVariable + `.`

// What the URLs begin with that a command takes: those of brokers that processes share, with
// those of a directory, and those that can be looked into.
var (
	sharedBrokers = []string{"nsq://", "nsqlookupd://", "amqp://", "nats://"}
	anyBroker     = append(sharedBrokers[:len(sharedBrokers):len(sharedBrokers)], "file:///")
	shownBrokers  = []string{"nsq://", "file:///"}
)

// brokerFlag defines --broker for a command that takes such URLs. otherwise is the URL that
// is meant when nobody says one.
func brokerFlag(cmd *cobra.Command, value *string, otherwise string, begins []string) {
	preset := os.Getenv(brokerVariable)
	if preset == "" {
		preset = otherwise
	}
	last := len(begins) - 1
	f := cmd.Flags()
	f.StringVar(value, "broker", preset, fmt.Sprintf("the broker's `URL`: %s or %s… ($%s)", strings.Join(begins[:last], "…, ")+"…", begins[last], brokerVariable))
	f.Lookup("broker").DefValue = otherwise
	complete(cmd, "broker", begins...)
}

// openBroker connects to the broker at the URL.
func openBroker(ctx context.Context, brokerURL string) (millrace.Broker, error) {
	b, err := millrace.Open(ctx, brokerURL)
	if errors.Is(err, syscall.ECONNREFUSED) && strings.HasPrefix(brokerURL, "nsq:") {
		return nil, fmt.Errorf("%w; does millrace serve run there?", err)
	}
	return b, err
}

// openOrStop is openBroker, unless this process is asked to stop first.
func openOrStop(ctx context.Context, brokerURL string, signals *signals) (millrace.Broker, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type opened struct {
		millrace.Broker
		err error
	}
	done := make(chan opened, 1)
	go func() {
		b, err := openBroker(ctx, brokerURL)
		done <- opened{b, err}
	}()
	select {
	case <-signals.stop:
		cancel(errInterrupted)
		o := <-done
		if o.err == nil {
			o.err = errors.Join(errInterrupted, o.Close())
		}
		return nil, o.err
	case o := <-done:
		return o.Broker, o.err
	}
}

// errOwnBroker is returned for a broker that no other process can reach.
var errOwnBroker = errors.New("this broker is one process's alone, so nobody could ask for its results: start millrace serve --data-path DIR, and write its address, as in --broker " + serveURL)

// checkShared refuses the URL of a broker that no other process can reach.
func checkShared(brokerURL string) error {
	if oneProcess(brokerURL) {
		return fmt.Errorf("--broker %s: %w", brokerURL, errOwnBroker)
	}
	return nil
}

// oneProcess says whether only one process can use the broker: it is in memory, or in a
// directory that is locked.
func oneProcess(brokerURL string) bool {
	scheme, _, _ := strings.Cut(brokerURL, ":")
	return scheme == "mem" || scheme == "file"
}
