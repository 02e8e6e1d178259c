package nsq

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"
)

// discoverEvery is how often the nsqlookupds are asked for the nodes.
const discoverEvery = 2 * time.Second

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// watch follows the fleet until the broker is closed.
func (b *Broker) watch() {
	told := false
	for pause(b.ctx, discoverEvery+rand.N(discoverEvery/4)) { //nolint:gosec // nothing secret
		switch err := b.discover(b.ctx); {
		case b.ctx.Err() != nil:
		case err != nil && !told:
			slog.Warn("nsq: the nodes that were known stay in use", "error", err)
			told = true
		case err == nil && told:
			slog.Info("nsq: nsqlookupd answers again")
			told = false
		}
	}
}

// discover asks all nsqlookupds for the nodes. It takes in those that are new, and lets go
// of those that are neither known any more nor connected. The error is that of the first
// nsqlookupd, when none of them answers.
func (b *Broker) discover(ctx context.Context) error {
	var found []endpoint
	var errs []error
	for _, lookupd := range b.lookupd {
		nodes, err := b.api.nodes(ctx, lookupd)
		if err != nil {
			errs = append(errs, err)
		}
		for _, at := range nodes {
			if b.access.tls != nil { // nsqd's HTTPS is at the port after HTTP's
				host, port, _ := net.SplitHostPort(at.http)
				n, _ := strconv.Atoi(port)
				at.http = hostPort(host, n+1)
			}
			if !slices.Contains(found, at) {
				found = append(found, at)
			}
		}
	}
	err := oneLine(errs)
	b.mu.Lock()
	b.trace = err
	known := b.nodes
	b.mu.Unlock()
	for _, n := range known {
		if up, _ := n.state(); err == nil && !up && !slices.Contains(found, n.at) {
			b.dropNode(n)
		}
	}
	for _, at := range found {
		if !slices.ContainsFunc(known, func(n *node) bool { return n.at == at }) {
			b.addNode(at)
		}
	}
	if len(errs) < len(b.lookupd) {
		return nil
	}
	return err
}

// dropNode forgets a node.
func (b *Broker) dropNode(n *node) {
	b.mu.Lock()
	b.nodes = slices.DeleteFunc(slices.Clone(b.nodes), func(other *node) bool { return other == n })
	subs := b.subscriptions()
	b.mu.Unlock()
	n.cancel()
	for _, s := range subs {
		s.dropSource(n)
	}
	b.changed()
}
