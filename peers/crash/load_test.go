package crash

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
)

// load publishes and consumes while the broker comes and goes. Publishers go on with the
// next message when one was not acknowledged: that one may come or not.
type load struct {
	tcp, http  string
	stop       chan struct{}
	publishing sync.WaitGroup
	consumers  []*nsq.Consumer
	deliveries atomic.Int64

	mu        sync.Mutex                 // guards what follows
	published map[string]bool            // whether it was acknowledged
	came      map[string]map[string]bool // by channel
	acked     int
}

// The channels: of one, all that comes is finished; of another some is given back, now
// and for later; the third has no consumer until the end.
const (
	finishing = "finishing"
	returning = "returning"
	waiting   = "waiting"
)

const (
	topic     = "t"
	batchSize = 20
)

func newLoad(tcp, http string) *load {
	l := &load{
		tcp: tcp, http: "http://" + http, stop: make(chan struct{}),
		published: make(map[string]bool), came: make(map[string]map[string]bool),
	}
	for _, channel := range []string{finishing, returning, waiting} {
		l.came[channel] = make(map[string]bool)
	}
	return l
}

// start makes the channels, and starts publishers and consumers.
func (l *load) start(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"/topic/create?topic=" + topic, "/channel/create?topic=" + topic + "&channel=" + finishing,
		"/channel/create?topic=" + topic + "&channel=" + returning, "/channel/create?topic=" + topic + "&channel=" + waiting,
	} {
		if err := l.post(path, ""); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		l.produce(fmt.Sprintf("batch%d", i), batchSize, func(p *nsq.Producer, bodies []string) error {
			return p.MultiPublish(topic, asBytes(bodies))
		})
	}
	l.produce("single", 1, func(p *nsq.Producer, bodies []string) error { return p.Publish(topic, []byte(bodies[0])) })
	l.produce("late", 1, func(p *nsq.Producer, bodies []string) error {
		return p.DeferredPublish(topic, 100*time.Millisecond, []byte(bodies[0]))
	})
	l.publishing.Go(func() {
		l.publish("web", batchSize, func(bodies []string) error { return l.post("/mpub?topic="+topic, strings.Join(bodies, "\n")) })
	})
	l.consume(t, finishing, func(*nsq.Message) {})
	l.consume(t, returning, func(m *nsq.Message) {
		switch {
		case m.Attempts > 2:
		case m.Timestamp%7 == 0:
			m.RequeueWithoutBackoff(0)
		case m.Timestamp%11 == 0:
			m.RequeueWithoutBackoff(50 * time.Millisecond)
		}
	})
}

// produce publishes by go-nsq, by a new producer after each that has failed: go-nsq races
// with itself when it connects again.
func (l *load) produce(name string, size int, send func(*nsq.Producer, []string) error) {
	l.publishing.Go(func() {
		var p *nsq.Producer
		l.publish(name, size, func(bodies []string) (err error) {
			if p == nil {
				if p, err = nsq.NewProducer(l.tcp, l.settings()); err != nil {
					return err
				}
				p.SetLogger(silence{}, nsq.LogLevelMax)
			}
			if err = send(p, bodies); err != nil {
				p.Stop()
				p = nil
			}
			return err
		})
		if p != nil {
			p.Stop()
		}
	})
}

// publish publishes batches until it is stopped.
func (l *load) publish(name string, size int, send func([]string) error) {
	for n := 0; ; n += size {
		select {
		case <-l.stop:
			return
		default:
		}
		bodies := make([]string, size)
		for i := range bodies {
			bodies[i] = fmt.Sprintf("%s-%d", name, n+i)
		}
		l.note(bodies, false)
		if err := send(bodies); err != nil {
			time.Sleep(2 * time.Millisecond) // it is down
			continue
		}
		l.note(bodies, true)
		time.Sleep(time.Millisecond) // or the end of the test takes longer than the test
	}
}

func (l *load) note(bodies []string, acknowledged bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, body := range bodies {
		l.published[body] = acknowledged
	}
	if acknowledged {
		l.acked += len(bodies)
	}
}

// consume starts a consumer of the channel, which finds the broker again when it is back.
func (l *load) consume(t *testing.T, channel string, do func(*nsq.Message)) {
	t.Helper()
	c, err := nsq.NewConsumer(topic, channel, l.settings())
	if err != nil {
		t.Fatal(err)
	}
	c.SetLogger(silence{}, nsq.LogLevelMax)
	c.AddConcurrentHandlers(nsq.HandlerFunc(func(m *nsq.Message) error {
		l.deliveries.Add(1)
		l.mu.Lock()
		l.came[channel][string(m.Body)] = true
		l.mu.Unlock()
		do(m)
		return nil
	}), 2)
	if err := c.ConnectToNSQD(l.tcp); err != nil {
		t.Fatal(err)
	}
	l.consumers = append(l.consumers, c)
}

func (l *load) stopPublishing() {
	close(l.stop)
	l.publishing.Wait()
}

func (l *load) stopConsuming() {
	for _, c := range l.consumers {
		c.Stop()
		<-c.StopChan
	}
}

// drain waits until all has come to every channel, or the time is over, and returns what
// is missing.
func (l *load) drain(within time.Duration) map[string][]string {
	for until := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		missing, n := l.missing()
		if n == 0 || time.Now().After(until) {
			return missing
		}
	}
}

func (l *load) missing() (missing map[string][]string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	missing = make(map[string][]string)
	for body, acknowledged := range l.published {
		if !acknowledged {
			continue
		}
		for channel, came := range l.came {
			if !came[body] {
				missing[channel] = append(missing[channel], body)
				n++
			}
		}
	}
	return missing, n
}

// invented are the bodies that came and were not published.
func (l *load) invented() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, came := range l.came {
		for body := range came {
			if _, ok := l.published[body]; !ok && !slices.Contains(out, body) {
				out = append(out, body)
			}
		}
	}
	return out
}

func (l *load) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

func (l *load) unanswered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.published) - l.acked
}

func (l *load) settings() *nsq.Config {
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 500
	cfg.MaxAttempts = 0
	cfg.LookupdPollInterval = 10 * time.Millisecond // after which it connects again
	cfg.LookupdPollJitter = 0
	cfg.DialTimeout = time.Second
	return cfg
}

func (l *load) post(path, body string) error {
	resp, err := http.Post(l.http+path, "", strings.NewReader(body))
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s", path, resp.Status)
	}
	return nil
}

func asBytes(bodies []string) [][]byte {
	out := make([][]byte, len(bodies))
	for i, b := range bodies {
		out[i] = []byte(b)
	}
	return out
}

// silence is a logger that says nothing.
type silence struct{}

// Output implements go-nsq's logger.
func (silence) Output(int, string) error { return nil }
