package door

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

// burst is how long what has changed waits for more, to be told together.
const burst = 10 * time.Millisecond

// registrar keeps every nsqlookupd that the broker was given told of its topics and
// channels, and asks them for those that the rest of the fleet has.
type registrar struct {
	who    identification
	names  func() []channelName   // what the broker has now, sorted
	change func() <-chan struct{} // closed when that changes next
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	client *http.Client
	log    *slog.Logger
	moved  chan struct{} // the addresses have changed

	mu    sync.Mutex // guards what follows
	given []string   // the addresses, of which peers has each once
	peers []*lookupPeer
	known []channelName // by all peers, once they have caught up; never changed in place
}

// identification is what nsqlookupd and a broker tell each other of themselves.
type identification struct {
	BroadcastAddress string `json:"broadcast_address"`
	Hostname         string `json:"hostname"`
	HTTPPort         int    `json:"http_port"`
	TCPPort          int    `json:"tcp_port"`
	Version          string `json:"version"`
}

func newRegistrar(cfg Config, names func() []channelName, change func() <-chan struct{}) *registrar {
	r := &registrar{
		who:    cfg.identification(),
		names:  names,
		change: change,
		dial:   (&net.Dialer{Timeout: time.Second}).DialContext,
		client: &http.Client{
			Timeout: cfg.HTTPClientRequestTimeout,
			Transport: &http.Transport{
				DialContext:     (&net.Dialer{Timeout: cfg.HTTPClientConnectTimeout}).DialContext,
				IdleConnTimeout: time.Minute,
			},
		},
		log:   cfg.Logger,
		moved: make(chan struct{}, 1),
	}
	r.setAddresses(append([]string{}, cfg.LookupdTCPAddresses...)) // GET /config tells a list
	return r
}

// setAddresses replaces the nsqlookupds. Connections to those that stay are kept.
func (r *registrar) setAddresses(addresses []string) {
	r.mu.Lock()
	var peers []*lookupPeer
	for _, addr := range addresses {
		if slices.ContainsFunc(peers, func(p *lookupPeer) bool { return p.addr == addr }) {
			continue
		}
		i := slices.IndexFunc(r.peers, func(p *lookupPeer) bool { return p.addr == addr })
		if i >= 0 {
			peers = append(peers, r.peers[i])
		} else {
			peers = append(peers, newLookupPeer(r, addr))
		}
	}
	r.given, r.peers = addresses, peers
	r.mu.Unlock()
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// addresses returns the nsqlookupds as they were given, nil too.
func (r *registrar) addresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.given
}

func (r *registrar) all() []*lookupPeer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers
}

// alone says that there is no nsqlookupd.
func (r *registrar) alone() bool { return len(r.all()) == 0 }

// serve speaks to the nsqlookupds until ctx ends.
func (r *registrar) serve(ctx context.Context) {
	defer r.client.CloseIdleConnections()
	running := make(map[*lookupPeer]context.CancelFunc)
	var ended sync.WaitGroup
	defer ended.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		changed := r.change()
		peers := r.all()
		for p, cancel := range running {
			if !slices.Contains(peers, p) {
				cancel()
				delete(running, p)
			}
		}
		for _, p := range peers {
			if running[p] == nil {
				var peerCtx context.Context
				peerCtx, running[p] = context.WithCancel(ctx)
				ended.Go(func() { p.serve(peerCtx) })
			}
		}
		r.tellOfChange(peers)
		select {
		case <-ctx.Done():
			return
		case <-r.moved:
		case <-changed:
		}
		pause(ctx, burst)
	}
}

// tellOfChange wakes up the peers if there are other names than before.
func (r *registrar) tellOfChange(peers []*lookupPeer) {
	if len(peers) == 0 {
		return
	}
	names := r.names()
	r.mu.Lock()
	changed := !slices.Equal(r.known, names)
	if changed {
		r.known = names
	}
	r.mu.Unlock()
	if changed {
		for _, p := range peers {
			p.look()
		}
	}
}

// wanted returns what every nsqlookupd should know.
func (r *registrar) wanted() []channelName {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// channels asks every nsqlookupd which channels the topic has elsewhere in the fleet, and
// returns those of them that wait for messages also without a consumer. An nsqlookupd that
// does not answer is left out.
func (r *registrar) channels(ctx context.Context, topic string) []string {
	peers := r.all()
	if len(peers) == 0 {
		return nil
	}
	var mu sync.Mutex // guards what follows
	var found []string
	answered := false
	var asked sync.WaitGroup
	for _, p := range peers {
		asked.Go(func() {
			channels, err := r.ask(ctx, p, topic)
			if err != nil {
				r.log.Warn("nsqlookupd cannot say which channels a new topic has", "nsqlookupd", p.addr, "topic", topic, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answered = true
			found = append(found, channels...)
		})
	}
	asked.Wait()
	if !answered {
		r.log.Error("no nsqlookupd could say which channels a new topic has; those that exist elsewhere begin empty here when a consumer comes", "topic", topic)
	}
	return slices.DeleteFunc(found, func(name string) bool {
		return millrace.CheckName(name) != nil || millrace.Ephemeral(name)
	})
}

// maxLookupAnswer is the most bytes that an nsqlookupd may answer with.
const maxLookupAnswer = 5 << 20

func (r *registrar) ask(ctx context.Context, p *lookupPeer, topic string) ([]string, error) {
	addr, err := p.httpAddress(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/channels?topic="+url.QueryEscape(topic), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	var answer struct {
		Channels []string `json:"channels"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxLookupAnswer)).Decode(&answer)
	return answer.Channels, err
}
