package door

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

const (
	// pingEvery is how often an nsqlookupd hears that the broker is alive: it takes those
	// that are silent for five minutes for dead.
	pingEvery = 15 * time.Second
	// answerWithin is how long an nsqlookupd may take to answer.
	answerWithin = 5 * time.Second
	// The pause before a connection that failed is tried again, and what it grows to.
	firstRetry, lastRetry = 100 * time.Millisecond, 15 * time.Second
	// askAtOnce is how many commands are sent before the answers are read.
	askAtOnce = 256
)

// lookupPeer is one nsqlookupd.
type lookupPeer struct {
	registrar *registrar
	addr      string
	wake      chan struct{} // the names may have changed

	tried     chan struct{} // closed when the first attempt to identify has ended
	triedOnce sync.Once

	mu   sync.Mutex // guards what follows
	http string     // its HTTP address, once it has said so
}

func newLookupPeer(r *registrar, addr string) *lookupPeer {
	return &lookupPeer{registrar: r, addr: addr, wake: make(chan struct{}, 1), tried: make(chan struct{})}
}

func (p *lookupPeer) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// httpAddress returns where its HTTP API is, as it has said itself. At the start it waits
// for that.
func (p *lookupPeer) httpAddress(ctx context.Context) (string, error) {
	select {
	case <-p.tried:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.http == "" {
		return "", errors.New("it has not been reached yet")
	}
	return p.http, nil
}

func (p *lookupPeer) hasTried() { p.triedOnce.Do(func() { close(p.tried) }) }

// serve keeps a connection to the nsqlookupd until ctx ends.
func (p *lookupPeer) serve(ctx context.Context) {
	log := p.registrar.log.With("nsqlookupd", p.addr)
	pause := firstRetry
	for {
		began := time.Now()
		err := p.session(ctx)
		p.hasTried()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			pause = firstRetry // it was well for a while
		}
		log.Warn("connection to nsqlookupd failed", "error", err, "retry", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, lastRetry)
	}
}

// session connects, says who the broker is, and keeps the nsqlookupd up to date until
// something fails.
func (p *lookupPeer) session(ctx context.Context) error {
	conn, err := p.registrar.dial(ctx, "tcp", p.addr)
	if err != nil {
		return err
	}
	s := &lookupSession{conn: conn, answers: make(chan []byte)}
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		_ = conn.Close()
		close(closed)
	})
	defer func() {
		cancel()
		<-closed
	}()
	reading.Go(func() { s.read(ctx) })

	if err := p.identify(ctx, s); err != nil {
		return err
	}
	p.hasTried()
	var told []channelName
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		names := p.registrar.wanted()
		if err := s.tell(ctx, told, names); err != nil {
			return err
		}
		told = names
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.wake:
		case <-ping.C:
			if err := s.ask(ctx, []byte(nsqwire.LookupPing), 1, nil); err != nil {
				return err
			}
		case answer, ok := <-s.answers:
			if !ok {
				return s.err
			}
			return fmt.Errorf("it said %q without being asked", answer)
		}
	}
}

// identify tells the nsqlookupd who the broker is and learns where its HTTP API is.
func (p *lookupPeer) identify(ctx context.Context, s *lookupSession) error {
	body, err := json.Marshal(p.registrar.who)
	if err != nil {
		return err
	}
	hello := nsqwire.AppendLookupIdentify([]byte(nsqwire.LookupMagic), body)
	return s.ask(ctx, hello, 1, func(answer []byte) error {
		var it identification
		if err := json.Unmarshal(answer, &it); err != nil {
			return fmt.Errorf("it answered %.200q to IDENTIFY", answer)
		}
		p.registrar.log.Info("connected to nsqlookupd", "nsqlookupd", p.addr, "version", it.Version,
			"broadcast_address", it.BroadcastAddress, "http_port", it.HTTPPort)
		if it.BroadcastAddress != "" {
			p.mu.Lock()
			p.http = net.JoinHostPort(it.BroadcastAddress, strconv.Itoa(it.HTTPPort))
			p.mu.Unlock()
		}
		return nil
	})
}

// lookupSession is one connection to an nsqlookupd.
type lookupSession struct {
	conn    net.Conn
	answers chan []byte // closed when no more can be read
	err     error       // why; set before answers is closed
}

// read reads answers until the connection fails or ctx ends. It always reads, so that the
// end of the connection is noticed at once.
func (s *lookupSession) read(ctx context.Context) {
	defer close(s.answers)
	from := bufio.NewReader(s.conn)
	for {
		answer, err := readAnswer(from)
		if err != nil {
			s.err = err
			return
		}
		select {
		case s.answers <- answer:
		case <-ctx.Done():
			s.err = context.Cause(ctx)
			return
		}
	}
}

func readAnswer(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxLookupAnswer {
		return nil, fmt.Errorf("it announced an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	_, err := io.ReadFull(from, answer)
	return answer, err
}

// ask sends n commands and reads their answers, which are given to check, or must be OK.
func (s *lookupSession) ask(ctx context.Context, commands []byte, n int, check func([]byte) error) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := s.conn.Write(commands); err != nil {
		return err
	}
	late := time.NewTimer(answerWithin)
	defer late.Stop()
	for range n {
		select {
		case answer, ok := <-s.answers:
			switch {
			case !ok:
				return s.err
			case check != nil:
				if err := check(answer); err != nil {
					return err
				}
			case string(answer) != nsqwire.OK:
				return fmt.Errorf("it answered %.200q", answer)
			}
		case <-late.C:
			return fmt.Errorf("it did not answer within %s", answerWithin)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// tell tells the nsqlookupd of the difference between two sorted lists of names. Channels
// go before their topic does.
func (s *lookupSession) tell(ctx context.Context, told, names []channelName) error {
	gone := without(told, names)
	slices.Reverse(gone)
	for some := range slices.Chunk(gone, askAtOnce) {
		if err := s.send(ctx, some, nsqwire.AppendUnregister); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(without(names, told), askAtOnce) {
		if err := s.send(ctx, some, nsqwire.AppendRegister); err != nil {
			return err
		}
	}
	return nil
}

func (s *lookupSession) send(ctx context.Context, names []channelName, command func([]byte, string, string) []byte) error {
	var commands []byte
	for _, name := range names {
		commands = command(commands, name.topic, name.channel)
	}
	return s.ask(ctx, commands, len(names), nil)
}

// without returns those of names that are not in others; both are sorted.
func without(names, others []channelName) []channelName {
	var rest []channelName
	for _, name := range names {
		if _, found := slices.BinarySearchFunc(others, name, channelName.compare); !found {
			rest = append(rest, name)
		}
	}
	return rest
}

func (c channelName) compare(other channelName) int {
	if order := strings.Compare(c.topic, other.topic); order != 0 {
		return order
	}
	return strings.Compare(c.channel, other.channel)
}
