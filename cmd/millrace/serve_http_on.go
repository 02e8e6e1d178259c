//go:build httpdoor

package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
)

func (o *serveOptions) defineStatsd(f *pflag.FlagSet) {
	s := &o.door.Statsd
	f.StringVar(&s.Address, "statsd-address", "", "push counts to the statsd at `HOST:PORT`, over UDP")
	f.StringVar(&s.Prefix, "statsd-prefix", "nsq.%s", "begin their names with this `TEXT`, in which %s is this broker's address")
	f.DurationVar(&s.Interval, "statsd-interval", time.Minute, "push them every `TIME`")
	f.BoolVar(&o.statsdMemory, "statsd-mem-stats", true, "push counts of the memory too")
	f.IntVar(&s.PacketSize, "statsd-udp-packet-size", 508, "send packets of at most `BYTES`")
	f.BoolVar(&s.NoEphemeral, "statsd-exclude-ephemeral", false, "leave out ephemeral topics and channels")
}

func (o *serveOptions) resolveStatsd() { o.door.Statsd.NoMemory = !o.statsdMemory }

type openDoor = *door.Door

func newDoor(b *broker.Broker, cfg door.Config) openDoor { return door.New(b, cfg) }
