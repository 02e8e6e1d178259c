package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsqio/go-nsq"
)

const (
	messageSize = 200
	batchSize   = 200
)

// publisher is a connection that publishes batches of 200.
type publisher struct {
	conn net.Conn
	in   *bufio.Reader
	mpub []byte
}

func newPublisher(addr, topic string) (*publisher, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &publisher{conn: conn, in: bufio.NewReader(conn)}
	body := binary.BigEndian.AppendUint32(nil, batchSize)
	for range batchSize {
		body = binary.BigEndian.AppendUint32(body, messageSize)
		body = append(body, make([]byte, messageSize)...)
	}
	p.mpub = fmt.Appendf(nil, "MPUB %s\n", topic)
	p.mpub = binary.BigEndian.AppendUint32(p.mpub, uint32(len(body)))
	p.mpub = append(p.mpub, body...)
	_, err = conn.Write(nsq.MagicV2)
	return p, err
}

// publish publishes one batch, and returns when it is acknowledged.
func (p *publisher) publish() error {
	if _, err := p.conn.Write(p.mpub); err != nil {
		return err
	}
	for {
		kind, data, err := nsq.ReadUnpackedResponse(p.in)
		switch {
		case err != nil:
			return err
		case kind == nsq.FrameTypeError:
			return errors.New(string(data))
		case string(data) == "OK":
			return nil
		}
		if err := p.beat(); err != nil {
			return err
		}
	}
}

// beat answers a heartbeat.
func (p *publisher) beat() error {
	_, err := nsq.Nop().WriteTo(p.conn)
	return err
}

// fill publishes a backlog by two connections.
func (at *running) fill(messages int) error {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() {
			p, err := newPublisher(at.tcp, topic)
			for n := 0; err == nil && n < messages/len(errs); n += batchSize {
				err = p.publish()
			}
			if p != nil {
				err = errors.Join(err, p.conn.Close())
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// publishToTopics publishes by many connections to as many topics, or fewer: ADDRESS
// CONNECTIONS TOPICS DURATION.
func publishToTopics(args []string) error {
	if len(args) != 4 {
		return errors.New("topics: wants ADDRESS CONNECTIONS TOPICS DURATION")
	}
	connections, err := strconv.Atoi(args[1])
	topics, err2 := strconv.Atoi(args[2])
	length, err3 := time.ParseDuration(args[3])
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	publishers := make([]*publisher, connections)
	for i := range publishers {
		if publishers[i], err = newPublisher(args[0], fmt.Sprintf("t%d", i%topics)); err != nil {
			return err
		}
	}
	var published atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, connections)
	begun := time.Now()
	for i, p := range publishers {
		wg.Go(func() {
			for time.Since(begun) < length && errs[i] == nil {
				errs[i] = p.publish()
				published.Add(batchSize)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(single(float64(published.Load()) / time.Since(begun).Seconds()))
}

// measureLatency publishes at a steady rate and consumes, both by go-nsq, and prints how
// long messages take from the call that publishes one to the handler: ADDRESS RATE
// DURATION.
func measureLatency(args []string) error {
	if len(args) != 3 {
		return errors.New("latency: wants ADDRESS RATE DURATION")
	}
	rate, err := strconv.Atoi(args[1])
	length, err2 := time.ParseDuration(args[2])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 2500
	cfg.OutputBufferTimeout = 25 * time.Millisecond
	var mu sync.Mutex // guards took
	took := make([]time.Duration, 0, int(float64(rate)*length.Seconds()))
	c, err := nsq.NewConsumer(topic, "ch", cfg)
	if err != nil {
		return err
	}
	c.SetLogger(silence{}, nsq.LogLevelMax)
	c.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error {
		now := time.Now().UnixNano()
		mu.Lock()
		took = append(took, time.Duration(now-int64(binary.BigEndian.Uint64(m.Body))))
		mu.Unlock()
		return nil
	}))
	if err := c.ConnectToNSQD(args[0]); err != nil {
		return err
	}
	p, err := nsq.NewProducer(args[0], cfg)
	if err != nil {
		return err
	}
	p.SetLogger(silence{}, nsq.LogLevelMax)
	sent, err := publishSteadily(p, rate, length)
	if err != nil {
		return err
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		came := len(took)
		mu.Unlock()
		if came >= sent {
			break
		}
		if time.Now().After(until) {
			return fmt.Errorf("%d of %d messages came", came, sent)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	took = took[len(took)/10:] // the first are those of a cold start
	slices.Sort(took)
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"p50": at(0.5), "p99": at(0.99)})
}

// publishSteadily publishes what is due every millisecond, and does not wait for answers
// before it goes on.
func publishSteadily(p *nsq.Producer, rate int, length time.Duration) (sent int, err error) {
	var failed atomic.Pointer[error]
	var unanswered sync.WaitGroup
	done := make(chan *nsq.ProducerTransaction, rate)
	go func() {
		for tr := range done {
			if tr.Error != nil {
				failed.Store(&tr.Error)
			}
			unanswered.Done()
		}
	}()
	for begun := time.Now(); time.Since(begun) < length; time.Sleep(time.Millisecond) {
		for due := int(time.Since(begun).Seconds() * float64(rate)); sent < due; sent++ {
			body := make([]byte, messageSize)
			binary.BigEndian.PutUint64(body, uint64(time.Now().UnixNano()))
			unanswered.Add(1)
			if err := p.PublishAsync(topic, body, done); err != nil {
				return sent, err
			}
		}
	}
	unanswered.Wait()
	close(done)
	if err := failed.Load(); err != nil {
		return sent, *err
	}
	return sent, nil
}

// silence is a logger that says nothing.
type silence struct{}

// Output implements go-nsq's logger.
func (silence) Output(int, string) error { return nil }
