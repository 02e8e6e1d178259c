// Package nsq is the driver for NSQ's protocol: for millrace serve, for nsqd, and for a fleet
// of them. Importing it makes two kinds of URL known to millrace.Open:
//
//	nsq://host:4150                          one node; the port may be left out
//	nsq://a:4150,b:4150                      several
//	nsqlookupd://host:4161,other:4161        those that the nsqlookupds know
//	nsq://host:4150?http=4151                where its HTTP API is, PORT or HOST:PORT, if it is
//	                                         not at the next port; one for all nodes or one for each
//	nsq://host:4150?secret=…                 what AUTH shows; better in $MILLRACE_TOKEN, which
//	                                         others cannot read in the list of processes
//	nsq://host:4150?tls=true&ca=FILE         TLS; the authorities that sign certificates, in PEM,
//	                                         if not the system's
//	nsq://host:4150?cert=FILE&key=FILE       TLS, with a certificate of our own
//
// With TLS, the HTTP API is spoken to over HTTPS, two ports up.
//
// # What goes where
//
// A topic and its channels are declared on every node. Each batch is published to one node,
// to whichever has the least to do; a subscription consumes from all of them. So order holds
// only with one node, and a delivery's Seq is 0 with several. Depth is the sum over the
// nodes that answer.
//
// Headers are a line in front of the body, "MR1 {json}", which millrace serve stores as
// headers and nsqd as part of the body. A message without the line has no headers.
//
// # When a node goes away
//
// The driver connects again by itself, for ever, and logs that to slog's default logger: not
// while the broker is opened, when the error says what is wrong.
// Meanwhile other nodes take what is published. While there is none Publish, Declare and
// Subscribe wait until their context ends; their error then says for what. A publish whose
// answer was lost is sent again, so that a message may be there twice. What a node has is
// as safe as that node makes it: nsqd loses what it has in memory when it is killed.
//
// # Leases
//
// A lease is nsqd's msg_timeout, from one second up to the node's --max-msg-timeout; a
// shorter one is taken for a second, a longer one is refused. Extend cannot go beyond
// --max-msg-timeout after the delivery. NSQ says nothing when it has taken an ack; that a
// lease has ended is known from the driver's own clock, from the end of the connection, and
// from what NSQ says later of an Extend that failed. nsqd gives a dead consumer's messages
// to others when their leases end, millrace serve at once.
//
// nsqd refuses delays beyond its --max-req-timeout, an hour, when publishing, and shortens
// them to that in Nack.
//
// # Why this is not go-nsq's Consumer
//
// The driver is built on go-nsq's commands. Its Consumer and Conn do not tell the node's
// max_msg_timeout, write each FIN by itself, cannot say which messages a dead connection
// took along, and go on without TLS when the node offers none.
package nsq

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

const (
	nodesScheme   = "nsq"
	lookupdScheme = "nsqlookupd"
)

func init() {
	millrace.Register(nodesScheme, open)
	millrace.Register(lookupdScheme, open)
}

// open connects to the nodes that the URL names. It returns when every one of them has been
// tried, and one is there.
func open(ctx context.Context, u *url.URL) (millrace.Broker, error) {
	s, err := parse(u)
	if err != nil {
		return nil, err
	}
	b := &Broker{access: s.access, api: newAPI(s.access), lookupd: s.lookupd, change: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if len(b.lookupd) > 0 {
		if err := b.discover(ctx); err != nil {
			_ = b.Close()
			return nil, err
		}
		b.routines.Go(b.watch)
	} else {
		for _, at := range s.nodes {
			b.addNode(at)
		}
	}
	if err := b.anyNode(ctx); err != nil {
		_ = b.Close()
		return nil, err
	}
	b.opened.Store(true)
	return b, nil
}

// Broker is the nodes behind the interface that all drivers share.
type Broker struct {
	access  access
	api     *api
	lookupd []string // HTTP addresses; none when the nodes are fixed

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	routines sync.WaitGroup
	opened   atomic.Bool

	mu       sync.Mutex // guards what follows; never held while waiting or calling
	nodes    []*node    // replaced, not changed
	turn     int
	change   chan struct{} // is closed when a node comes or goes
	trace    error         // why nsqlookupd could not be asked the last time
	subs     map[*subscription]struct{}
	declared map[channelName]struct{}
}

var _ millrace.Broker = (*Broker)(nil)

type channelName struct{ topic, channel string } // channel is "" for a topic alone

// may returns why a method cannot do anything; nil if it can.
func (b *Broker) may(ctx context.Context, names ...string) error {
	if b.ctx.Err() != nil {
		return fmt.Errorf("nsq: %w", millrace.ErrClosed)
	}
	for _, name := range names {
		if err := millrace.CheckName(name); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// addNode begins to keep a connection to a node.
func (b *Broker) addNode(at endpoint) {
	ctx, cancel := context.WithCancel(b.ctx)
	n := &node{broker: b, at: at, cancel: cancel, limits: limits{defaultMessage, defaultBody}}
	b.mu.Lock()
	b.nodes = append(slices.Clip(b.nodes), n)
	subs := b.subscriptions()
	b.mu.Unlock()
	b.routines.Go(func() { n.run(ctx) })
	for _, s := range subs {
		s.addSource(n)
	}
}

// subscriptions returns those there are. The caller holds mu.
func (b *Broker) subscriptions() []*subscription {
	var subs []*subscription
	for s := range b.subs {
		subs = append(subs, s)
	}
	return subs
}

// changed tells those who wait that a node has come or gone.
func (b *Broker) changed() {
	b.mu.Lock()
	close(b.change)
	b.change = make(chan struct{})
	b.mu.Unlock()
}

// all returns the nodes, and what is closed when one of them comes or goes.
func (b *Broker) all() ([]*node, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes, b.change
}

// anyNode waits until every node has been tried, and returns an error if none is there.
func (b *Broker) anyNode(ctx context.Context) error {
	for {
		nodes, change := b.all()
		up, tried := 0, 0
		for _, n := range nodes {
			connected, why := n.state()
			if connected {
				up++
			}
			if connected || why != nil {
				tried++
			}
		}
		switch {
		case tried == len(nodes) && up > 0:
			return nil
		case tried == len(nodes):
			return b.trouble()
		}
		select {
		case <-change:
		case <-ctx.Done():
			return b.waited(ctx)
		}
	}
}

// trouble says why no node is there; nil when one is.
func (b *Broker) trouble() error {
	nodes, _ := b.all()
	var errs []error
	for _, n := range nodes {
		connected, why := n.state()
		if connected {
			return nil
		}
		if why != nil {
			errs = append(errs, why)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trace != nil {
		errs = append(errs, b.trace)
	} else if len(nodes) == 0 {
		errs = append(errs, errors.New("nsqlookupd knows of no broker"))
	}
	return oneLine(errs)
}

// oneLine is errors.Join in one line.
func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// limits are what every node takes.
func (b *Broker) limits() limits {
	l := limits{defaultMessage, defaultBody}
	nodes, _ := b.all()
	for i, n := range nodes {
		n.mu.Lock()
		if i == 0 {
			l = n.limits
		} else {
			l.message, l.body = min(l.message, n.limits.message), min(l.body, n.limits.body)
		}
		n.mu.Unlock()
	}
	return l
}

// Close ends all subscriptions, giving back what they hold, and all connections.
func (b *Broker) Close() error {
	b.mu.Lock()
	subs := b.subscriptions()
	first := b.ctx.Err() == nil
	b.cancel()
	b.mu.Unlock()
	if !first {
		return fmt.Errorf("nsq: %w", millrace.ErrClosed)
	}
	var ending sync.WaitGroup
	for _, s := range subs {
		ending.Go(func() { _ = s.Close() })
	}
	ending.Wait()
	b.routines.Wait()
	b.api.client.CloseIdleConnections()
	return nil
}

// apiPatience is how long an HTTP API may fail to answer when the node itself is there:
// it is just starting, or ending.
const apiPatience = 2 * time.Second
