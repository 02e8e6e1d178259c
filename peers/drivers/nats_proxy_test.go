package drivers_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// natsProxy is the network between a client and a server, which the tests break.
type natsProxy struct {
	URL string // as Millrace is told it

	ln      net.Listener
	server  string
	serving sync.WaitGroup
	mu      sync.Mutex // guards all below
	pipes   map[*natsPipe]struct{}
	closed  bool // nobody gets through
}

// natsPipe is one connection. It swallows what the server says when it is deaf, and what
// the client says when it is dumb.
type natsPipe struct {
	client, server net.Conn
	deaf, dumb     atomic.Bool
}

func newNATSProxy(t *testing.T, server string) *natsProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &natsProxy{URL: "nats://" + ln.Addr().String(), ln: ln, server: server, pipes: map[*natsPipe]struct{}{}}
	p.serving.Go(p.serve)
	t.Cleanup(func() {
		p.Cut(true)
		_ = ln.Close()
		p.serving.Wait()
	})
	return p
}

func (p *natsProxy) serve() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		pipe := &natsPipe{client: client, server: server}
		if !p.add(pipe) {
			pipe.close()
			continue
		}
		p.serving.Go(func() { pipe.copy(server, client, &pipe.dumb) })
		p.serving.Go(func() { pipe.copy(client, server, &pipe.deaf) })
	}
}

// add notes the connection; returns false when nobody gets through.
func (p *natsProxy) add(pipe *natsPipe) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.pipes[pipe] = struct{}{}
	}
	return !p.closed
}

func (p *natsPipe) copy(to, from net.Conn, swallow *atomic.Bool) {
	defer p.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if swallow.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *natsPipe) close() {
	_ = p.client.Close()
	_ = p.server.Close()
}

// Cut breaks all connections, and lets nobody through from now on, or everybody.
func (p *natsProxy) Cut(closed bool) {
	p.mu.Lock()
	p.closed = closed
	pipes := p.pipes
	p.pipes = map[*natsPipe]struct{}{}
	p.mu.Unlock()
	for pipe := range pipes {
		pipe.close()
	}
}

// Mute makes the connections that there are deaf, and dumb as well if so. New ones are
// not.
func (p *natsProxy) Mute(dumb bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pipe := range p.pipes {
		pipe.deaf.Store(true)
		pipe.dumb.Store(dumb)
	}
}
