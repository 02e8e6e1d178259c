package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
)

// load publishes and consumes while the broker comes and goes. Publishers go on with the
// next message when one was not acknowledged: that one may come or not.
type load struct {
	t         *testing.T
	tcp, http string
	book      *book
	publish   context.Context
	consume   context.Context
	stop      [2]func()
	running   [2]sync.WaitGroup // publishers, consumers
}

// The channels: of one, all that comes is finished; of another some is given back, now,
// for later, and for so long that it must not come again; the third has no consumer until
// the end.
const (
	finishing = "finishing"
	returning = "returning"
	waiting   = "waiting"
)

var (
	topics   = []string{"a", "b"}
	channels = []string{finishing, returning, waiting}
)

const (
	batchSize = 20
	forLong   = time.Hour
)

func newLoad(t *testing.T, tcp, http string) *load {
	l := &load{t: t, tcp: tcp, http: "http://" + http, book: newBook()}
	l.publish, l.stop[0] = context.WithCancel(t.Context())
	l.consume, l.stop[1] = context.WithCancel(t.Context())
	return l
}

// start makes the channels, and starts publishers and consumers.
func (l *load) start() {
	l.t.Helper()
	for _, topic := range topics {
		l.must(l.post("/topic/create?topic="+topic, ""))
		for _, channel := range channels {
			l.must(l.post("/channel/create?topic="+topic+"&channel="+channel, ""))
		}
	}
	for _, topic := range topics {
		for i := range 2 {
			l.produce(fmt.Sprintf("%s/batch%d", topic, i), batchSize, func(_ int, bodies []string) *nsq.Command {
				cmd, err := nsq.MultiPublish(topic, asBytes(bodies))
				l.must(err)
				return cmd
			})
		}
		l.produce(topic+"/single", 1, func(_ int, bodies []string) *nsq.Command { return nsq.Publish(topic, []byte(bodies[0])) })
		l.produce(topic+"/late", 1, func(n int, bodies []string) *nsq.Command {
			delay := 50 * time.Millisecond
			if isFar(n) {
				delay = forLong
			}
			return nsq.DeferredPublish(topic, delay, []byte(bodies[0]))
		})
		l.running[0].Go(func() {
			l.publishAll(topic+"/web", batchSize, func(_ int, bodies []string) error {
				return l.post("/mpub?topic="+topic, strings.Join(bodies, "\n"))
			})
		})
		for range 2 {
			l.subscribe(topic, finishing)
			l.subscribe(topic, returning)
		}
	}
}

func (l *load) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// isFar says whether the n-th message that is published for later is so for long.
func isFar(n int) bool { return n%4 == 0 }

// produce publishes over a connection, and a new one after each that has failed.
func (l *load) produce(name string, size int, command func(n int, bodies []string) *nsq.Command) {
	l.running[0].Go(func() {
		var c *client
		l.publishAll(name, size, func(n int, bodies []string) (err error) {
			if c == nil {
				if c, err = dial(l.tcp); err != nil {
					c = nil
					return err
				}
			}
			c.send(command(n, bodies))
			if err = c.wants(1, nil); err != nil {
				c.close()
				c = nil
			}
			return err
		})
		if c != nil {
			c.close()
		}
	})
}

// publishAll publishes batches until it is stopped.
func (l *load) publishAll(name string, size int, send func(n int, bodies []string) error) {
	random := rand.New(rand.NewPCG(uint64(len(name)), 1)) //nolint:gosec // sizes, nothing secret
	for n := 0; l.publish.Err() == nil; n += size {
		bodies := make([]string, size)
		for i := range bodies {
			bodies[i] = fmt.Sprintf("%s/%d %s.", name, n+i, strings.Repeat("x", random.IntN(400)))
		}
		l.book.begin(bodies, strings.HasSuffix(name, "/late") && isFar(n))
		if err := send(n, bodies); err != nil {
			if errors.Is(err, errRefused) {
				l.t.Error(err)
			}
			time.Sleep(time.Millisecond) // it is down
			continue
		}
		l.book.acknowledge(bodies)
		time.Sleep(4 * time.Millisecond) // or the end of the test takes longer than the test
	}
}

// subscribe starts a consumer of the channel, which comes again whenever the broker does.
func (l *load) subscribe(topic, channel string) {
	l.running[1].Go(func() {
		for l.consume.Err() == nil {
			if err := l.consumeOnce(topic, channel); errors.Is(err, errRefused) {
				l.t.Error(err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// consumeOnce consumes over one connection until it breaks. Behind the answers to what it
// has got it publishes a message: the OK for that says that they were taken.
func (l *load) consumeOnce(topic, channel string) error {
	c, err := dial(l.tcp)
	if err != nil {
		return err
	}
	defer c.close()
	defer context.AfterFunc(l.consume, c.close)()
	life := l.book.now()
	var got []*nsq.Message
	take := func(m *nsq.Message) { got = append(got, m) }
	c.send(nsq.Subscribe(topic, channel))
	if err := c.wants(1, take); err != nil {
		return err
	}
	c.send(nsq.Ready(100))
	if err := c.wants(0, take); err != nil {
		return err
	}
	for {
		for len(got) == 0 || len(got) < 50 && c.in.Buffered() > 0 {
			if _, err := c.next(take); err != nil {
				return err
			}
		}
		batch := got
		got = nil
		var finished, parked []string
		for _, m := range batch {
			l.book.deliver(topic, channel, string(m.Body))
			switch how := m.Timestamp / 1000 % 20; {
			case channel != returning || how > 5 || m.Attempts > 3:
				c.send(nsq.Finish(m.ID))
				finished = append(finished, key(string(m.Body)))
			case how == 0 && m.Attempts > 1:
				c.send(nsq.Requeue(m.ID, forLong))
				parked = append(parked, key(string(m.Body)))
			case how < 3:
				c.send(nsq.Requeue(m.ID, 0))
			default:
				c.send(nsq.Requeue(m.ID, 30*time.Millisecond))
			}
		}
		c.send(nsq.Publish("answers#ephemeral", []byte("taken")))
		if err := c.wants(1, take); err != nil {
			return err
		}
		l.book.settle(channel, life, finished, false)
		l.book.settle(channel, life, parked, true)
	}
}

func (l *load) stopPublishing() {
	l.stop[0]()
	l.running[0].Wait()
}

func (l *load) stopConsuming() {
	l.stop[1]()
	l.running[1].Wait()
}

// drain waits until all has come to every channel, or nothing has come for long.
func (l *load) drain() {
	for last, since := -1, time.Now(); time.Since(since) < patience; time.Sleep(100 * time.Millisecond) {
		if came := l.book.deliveries(); came != last {
			last, since = came, time.Now()
			continue
		}
		missing := 0
		for _, topic := range topics {
			for _, channel := range channels {
				missing += len(l.book.missing(topic, channel))
			}
		}
		if missing == 0 {
			return
		}
	}
}

func (l *load) post(path, body string) error {
	resp, err := web.Post(l.http+path, "", strings.NewReader(body))
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: POST %s: %s", errRefused, path, resp.Status)
	}
	return nil
}

// web has no connection that outlives a broker.
var web = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func asBytes(bodies []string) [][]byte {
	out := make([][]byte, len(bodies))
	for i, b := range bodies {
		out[i] = []byte(b)
	}
	return out
}
