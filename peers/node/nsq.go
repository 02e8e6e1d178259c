package node

import (
	"fmt"
	"time"

	"github.com/nsqio/nsq/nsqadmin"
	"github.com/nsqio/nsq/nsqd"
	"github.com/nsqio/nsq/nsqlookupd"
)

// NSQD starts the real nsqd. It looks for timeouts every few milliseconds, and for new
// channels to look at, instead of every five seconds: tests wait for them.
func NSQD(dir string, change func(*Options)) (*Node, error) {
	opts := options(dir, change)
	opts.QueueScanInterval = 5 * time.Millisecond
	opts.QueueScanRefreshInterval = 10 * time.Millisecond
	opts.QueueScanSelectionCount = 1000
	daemon, err := nsqd.New(opts)
	if err != nil {
		return nil, fmt.Errorf("start nsqd: %w", err)
	}
	// As its main function does before it listens.
	if err := daemon.LoadMetadata(); err != nil {
		return nil, fmt.Errorf("start nsqd: %w", err)
	}
	if err := daemon.PersistMetadata(); err != nil {
		return nil, fmt.Errorf("start nsqd: %w", err)
	}
	var serving running
	serving.run(daemon.Main)
	n := &Node{Name: "nsqd", TCP: daemon.RealTCPAddr().String(), HTTP: daemon.RealHTTPAddr().String()}
	if opts.TLSCert != "" {
		n.HTTPS = daemon.RealHTTPSAddr().String()
	}
	n.stop = func() error {
		daemon.Exit()
		return serving.wait()
	}
	return n, nil
}

// Lookupd is an nsqlookupd.
type Lookupd struct {
	TCP, HTTP string // addresses
	*nsqlookupd.NSQLookupd
	serving running
}

// NSQLookupd starts the real nsqlookupd.
func NSQLookupd() (*Lookupd, error) {
	opts := nsqlookupd.NewOptions()
	opts.TCPAddress = "127.0.0.1:0"
	opts.HTTPAddress = "127.0.0.1:0"
	opts.BroadcastAddress = "127.0.0.1"
	opts.Logger = silence{}
	daemon, err := nsqlookupd.New(opts)
	if err != nil {
		return nil, fmt.Errorf("start nsqlookupd: %w", err)
	}
	l := &Lookupd{TCP: daemon.RealTCPAddr().String(), HTTP: daemon.RealHTTPAddr().String(), NSQLookupd: daemon}
	l.serving.run(daemon.Main)
	return l, nil
}

// Await returns when n nodes have registered; with an error if they do not within ten seconds.
func (l *Lookupd) Await(n int) error {
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		known := len(l.DB.FindProducers("client", "", ""))
		if known >= n {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("of %d nodes %d have registered with nsqlookupd", n, known)
		}
	}
}

// Stop ends it, and returns when it has ended.
func (l *Lookupd) Stop() error {
	l.Exit()
	return l.serving.wait()
}

// Admin is an nsqadmin.
type Admin struct {
	HTTP string // its address
	*nsqadmin.NSQAdmin
	serving running
}

// NSQAdmin starts the real nsqadmin, which asks the nsqlookupds, or the nodes, at these
// HTTP addresses.
func NSQAdmin(lookupds, nodes []string) (*Admin, error) {
	opts := nsqadmin.NewOptions()
	opts.HTTPAddress = "127.0.0.1:0"
	opts.Logger = silence{}
	opts.NSQLookupdHTTPAddresses = lookupds
	opts.NSQDHTTPAddresses = nodes
	daemon, err := nsqadmin.New(opts)
	if err != nil {
		return nil, fmt.Errorf("start nsqadmin: %w", err)
	}
	a := &Admin{HTTP: daemon.RealHTTPAddr().String(), NSQAdmin: daemon}
	a.serving.run(daemon.Main)
	return a, nil
}

// Stop ends it, and returns when it has ended.
func (a *Admin) Stop() error {
	a.Exit()
	return a.serving.wait()
}
