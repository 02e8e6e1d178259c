package node

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS is a nats-server with JetStream, in this process. Its address stays the same when
// it is started again.
type NATS struct {
	// Addr is "127.0.0.1:PORT", URL the same as Millrace is told it.
	Addr, URL string

	opts   server.Options
	server *server.Server
}

// NATSServer starts a nats-server with its data in dir. change may be nil.
func NATSServer(dir string, change func(*server.Options)) (*NATS, error) {
	addr, err := LowAddress()
	if err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	n := &NATS{Addr: addr, URL: "nats://" + addr, opts: server.Options{
		Host: host, Port: port,
		JetStream: true, StoreDir: dir,
		NoLog: true, NoSigs: true,
	}}
	if change != nil {
		change(&n.opts)
	}
	return n, n.Start()
}

// Start starts the server again, with the data that it had.
func (n *NATS) Start() error {
	opts := n.opts // the server writes into its options
	s, err := server.NewServer(&opts)
	if err != nil {
		return fmt.Errorf("start nats-server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startWithin) {
		s.Shutdown()
		return errors.New("start nats-server: it does not listen")
	}
	n.server = s
	return nil
}

// Stop ends the server, and returns when it has let go of its port and its files. A
// second Stop does nothing.
func (n *NATS) Stop() error {
	if n.server == nil {
		return nil
	}
	n.server.Shutdown()
	n.server.WaitForShutdown()
	n.server = nil
	return nil
}

// Server is what runs.
func (n *NATS) Server() *server.Server { return n.server }
