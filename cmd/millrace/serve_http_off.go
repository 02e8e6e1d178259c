//go:build !httpdoor

package main

import (
	"context"
	"net"
	"time"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
)

func (o *serveOptions) defineStatsd(f *pflag.FlagSet) {
	f.String("statsd-address", "", "push counts to the statsd at `HOST:PORT`, over UDP")
	f.String("statsd-prefix", "nsq.%s", "")
	f.Duration("statsd-interval", time.Minute, "")
	f.Bool("statsd-mem-stats", true, "")
	f.Int("statsd-udp-packet-size", 508, "")
	f.Bool("statsd-exclude-ephemeral", false, "")
}

func (o *serveOptions) resolveStatsd() {}

type interimDoor struct{ *door.Door }

func (d interimDoor) wait(ctx context.Context, ln net.Listener) error {
	<-ctx.Done()
	return ln.Close()
}
func (d interimDoor) ServeHTTP(ctx context.Context, ln net.Listener) error  { return d.wait(ctx, ln) }
func (d interimDoor) ServeHTTPS(ctx context.Context, ln net.Listener) error { return d.wait(ctx, ln) }
func (d interimDoor) Serve(ctx context.Context) error                       { <-ctx.Done(); return nil }

type openDoor = interimDoor

func newDoor(b *broker.Broker, cfg door.Config) openDoor { return interimDoor{door.New(b, cfg)} }
