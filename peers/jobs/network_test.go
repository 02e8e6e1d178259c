package jobs_test

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// network is the way from some processes to a broker, which the tests break.
type network struct {
	url string // the broker's, by this way

	serving   sync.WaitGroup
	listeners []net.Listener
	slow      atomic.Int64 // nanoseconds that every read is held up

	mu    sync.Mutex // guards what follows
	pipes map[*pipe]struct{}
	cut   bool // nobody gets through
}

// pipe is one connection. One that is a hole takes everything and passes on nothing.
type pipe struct {
	ends [2]net.Conn
	hole atomic.Bool
}

// newNetwork makes a way to the broker, which ends with the test.
func newNetwork(t *testing.T, on *system) *network {
	t.Helper()
	n := &network{url: on.direct, pipes: map[*pipe]struct{}{}}
	for _, addr := range on.addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.listeners = append(n.listeners, ln)
		n.url = strings.ReplaceAll(n.url, addr, ln.Addr().String())
		n.serving.Go(func() { n.serve(ln, addr) })
	}
	t.Cleanup(func() {
		n.setCut(true)
		for _, ln := range n.listeners {
			_ = ln.Close()
		}
		n.serving.Wait()
	})
	return n
}

func (n *network) serve(ln net.Listener, addr string) {
	for {
		from, err := ln.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", addr)
		if err != nil {
			_ = from.Close()
			continue
		}
		p := &pipe{ends: [2]net.Conn{from, to}}
		n.mu.Lock()
		through := !n.cut
		if through {
			n.pipes[p] = struct{}{}
		}
		n.mu.Unlock()
		if !through {
			p.close()
			continue
		}
		n.serving.Go(func() { n.pass(p, from, to) })
		n.serving.Go(func() { n.pass(p, to, from) })
	}
}

func (n *network) pass(p *pipe, from, to net.Conn) {
	defer p.close()
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if err != nil {
			break
		}
		time.Sleep(time.Duration(n.slow.Load()))
		if p.hole.Load() {
			continue
		}
		if _, err := to.Write(buf[:k]); err != nil {
			break
		}
	}
	n.mu.Lock()
	delete(n.pipes, p)
	n.mu.Unlock()
}

func (p *pipe) close() {
	for _, end := range p.ends {
		_ = end.Close()
	}
}

func (n *network) each(do func(*pipe)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.pipes {
		do(p)
	}
}

// setCut breaks all connections, and lets nobody through from now on; or lets everybody.
func (n *network) setCut(cut bool) {
	n.mu.Lock()
	n.cut = cut
	n.mu.Unlock()
	if cut {
		n.each((*pipe).close)
	}
}

// halfOpen makes all connections that there are half-open: whatever is sent goes nowhere, and
// neither side is told. New ones work.
func (n *network) halfOpen() { n.each(func(p *pipe) { p.hole.Store(true) }) }

// survivesNetwork: what is between a client, a worker and the broker is slow, breaks, and
// swallows everything, at one end and the other.
func survivesNetwork(t *testing.T, on *system) {
	const queue, size = "network", 1000
	clients, workers := newNetwork(t, on), newNetwork(t, on)
	clients.slow.Store(int64(2 * time.Millisecond))
	workers.slow.Store(int64(2 * time.Millisecond))
	worker := goWorker(t, workers.url, queue, againTTL)
	j := newJob(t, &system{kind: on.kind, url: clients.url}, queue, size)

	j.give(1, size/5)
	j.until(size / 10)
	clients.setCut(true)
	j.give(size/5+1, 2*size/5)
	j.asker.saysWithin(patience, "no results come, because the broker does not answer")
	clients.setCut(false)
	j.until(size / 4)

	j.give(2*size/5+1, 3*size/5)
	j.until(2 * size / 5)
	workers.setCut(true)
	time.Sleep(againTTL / 2)
	workers.setCut(false)
	j.until(size / 2)

	j.give(3*size/5+1, 4*size/5)
	workers.halfOpen()
	j.until(4 * size / 5)

	clients.halfOpen()
	j.give(4*size/5+1, size)
	j.finish()
	worker.signal(syscall.SIGTERM)
	if err := worker.wait(); err != nil {
		t.Errorf("the worker: %v\n%s", err, worker.stderr())
	}
	on.wantNothingLeft(t, queue)
}
