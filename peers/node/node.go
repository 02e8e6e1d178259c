package node

import (
	"log/slog"
	"sync"

	"github.com/nsqio/nsq/nsqd"
)

// Options are what a broker is told, in nsqd's words.
type Options = nsqd.Options

// Node is a broker that listens.
type Node struct {
	// Name is "nsqd" or "millrace".
	Name string
	// TCP, HTTP and HTTPS are addresses, "127.0.0.1:PORT". HTTPS is "" without TLS.
	TCP, HTTP, HTTPS string

	stop func() error
}

// Stop ends the node, and returns when it has ended. A second Stop does nothing.
func (n *Node) Stop() error {
	if n.stop == nil {
		return nil
	}
	stop := n.stop
	n.stop = nil
	return stop()
}

// Start starts a broker in this process: NSQD or Millrace.
type Start func(dir string, change func(*Options)) (*Node, error)

// options are those of a node on loopback with its data in dir.
func options(dir string, change func(*Options)) *Options {
	opts := nsqd.NewOptions()
	opts.TCPAddress = "127.0.0.1:0"
	opts.HTTPAddress = "127.0.0.1:0"
	opts.HTTPSAddress = "127.0.0.1:0"
	opts.BroadcastAddress = "127.0.0.1"
	opts.DataPath = dir
	opts.Logger = silence{}
	if change != nil {
		change(opts)
	}
	return opts
}

// silence is a logger of NSQ's that says nothing.
type silence struct{}

// Output implements nsqd.Logger, nsqlookupd.Logger and nsqadmin.Logger.
func (silence) Output(int, string) error { return nil }

// quiet is a logger of ours that says nothing.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// running are goroutines that serve, and what the first that failed said.
type running struct {
	wg   sync.WaitGroup
	mu   sync.Mutex // guards err
	fail error
}

func (r *running) run(serve func() error) {
	r.wg.Go(func() {
		if err := serve(); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.fail == nil {
				r.fail = err
			}
		}
	})
}

// wait waits for all of them.
func (r *running) wait() error {
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fail
}
