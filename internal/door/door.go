package door

import (
	"sync"
	"time"

	"github.com/millrace/millrace/broker"
)

// Door serves a broker to the network. All its methods may be used concurrently.
type Door struct {
	broker  *broker.Broker
	cfg     Config
	pumps   sync.Pool // of *pumpSpace
	batches sync.Pool // of *batch

	started   time.Time
	registrar *registrar
	births    births

	mu        sync.Mutex // guards what follows
	conns     map[*conn]struct{}
	consumers map[channelName]int
}

// channelName names a channel in the whole broker.
type channelName struct{ topic, channel string }

// New returns the doors of a broker. They are opened by ServeTCP and Handler.
func New(b *broker.Broker, cfg Config) *Door {
	d := &Door{
		broker: b, cfg: cfg.withDefaults(), started: time.Now(),
		pumps:     sync.Pool{New: func() any { return new(pumpSpace) }},
		batches:   sync.Pool{New: func() any { return new(batch) }},
		conns:     make(map[*conn]struct{}),
		consumers: make(map[channelName]int),
	}
	d.registrar = newRegistrar(d.cfg, d.names, b.Changed)
	return d
}
