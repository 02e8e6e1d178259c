package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nsqio/go-nsq"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/nats"
	_ "github.com/millrace/millrace/driver/nsq"
	_ "github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

const (
	requestQueue, replyQueue = "tasks", "replies"
	// outstanding is how many requests of the bare clients have no answer yet: gather's own
	// window.
	outstanding = gather.DefaultWindow
	// warmTasks are answered before the measurement begins.
	warmTasks = 1000
)

// echoTasks is a worker with a Go handler, until it is killed: URL.
func echoTasks(args []string) error {
	b, err := millrace.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	echo := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) { return t.Payload, nil })
	w, err := worker.New(b, requestQueue, echo, worker.Config{})
	if err != nil {
		return err
	}
	return w.Serve(context.Background())
}

// askTasks gathers the answers to as many tasks as there is time for: URL DURATION.
func askTasks(args []string) error {
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ctx := context.Background()
	b, err := millrace.Open(ctx, args[0])
	if err != nil {
		return err
	}
	client, err := gather.New(ctx, b, requestQueue, gather.Config{})
	if err != nil {
		return err
	}
	var m meter
	for _, err := range gather.Map[[]byte](ctx, client, m.requests) {
		if err != nil {
			return err
		}
		if m.answered(length) {
			break
		}
	}
	if err := m.print(); err != nil {
		return err
	}
	return errors.Join(client.Close(ctx), b.Close())
}

// meter counts answers, and what they cost this process.
type meter struct {
	count       int
	begun       time.Time
	took        time.Duration
	cpu0, cpu1  time.Duration
	io0, io1    int64
	measuredAll bool
}

// requests are without end.
func (m *meter) requests(yield func([]byte) bool) {
	body := make([]byte, messageSize)
	for i := uint64(0); ; i++ {
		binary.BigEndian.PutUint64(body, i)
		if !yield(body) {
			return
		}
	}
}

// answered counts an answer, and says whether that was the last.
func (m *meter) answered(length time.Duration) bool {
	m.count++
	switch {
	case m.count == warmTasks:
		m.begun = time.Now()
		m.cpu0, m.io0 = ownCPU(), traffic("self")
	case m.count > warmTasks && m.count%64 == 0 && time.Since(m.begun) >= length:
		m.took = time.Since(m.begun)
		m.cpu1, m.io1 = ownCPU(), traffic("self")
		m.measuredAll = true
	}
	return m.measuredAll
}

func (m *meter) print() error {
	n := float64(m.count - warmTasks)
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"tasks": n / m.took.Seconds(), "count": float64(m.count),
		"cpu": (m.cpu1 - m.cpu0).Seconds() * 1e6 / n, "bytes": float64(m.io1-m.io0) / n,
	})
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// traffic is how much a process has read and written, files and connections.
func traffic(pid string) (sum int64) {
	text, err := os.ReadFile("/proc/" + pid + "/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if name == "rchar" || name == "wchar" {
			n, _ := strconv.ParseInt(value, 10, 64)
			sum += n
		}
	}
	return sum
}

// echoNSQ answers requests by go-nsq alone, until it is killed: ADDRESS.
func echoNSQ(args []string) error {
	p, c, err := nsqPair(args[0], requestQueue, func(p *nsq.Producer, m *nsq.Message) error {
		return p.PublishAsync(replyQueue, m.Body, nil)
	})
	if err != nil {
		return err
	}
	untilKilled()
	c.Stop()
	p.Stop()
	return nil
}

// nsqPair is a producer, and a consumer that passes it what it gets.
func nsqPair(addr, from string, handle func(*nsq.Producer, *nsq.Message) error) (*nsq.Producer, *nsq.Consumer, error) {
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 2500
	p, err := nsq.NewProducer(addr, cfg)
	if err != nil {
		return nil, nil, err
	}
	p.SetLogger(silence{}, nsq.LogLevelMax)
	c, err := nsq.NewConsumer(from, "work", cfg)
	if err != nil {
		return nil, nil, err
	}
	c.SetLogger(silence{}, nsq.LogLevelMax)
	c.AddConcurrentHandlers(nsq.HandlerFunc(func(m *nsq.Message) error { return handle(p, m) }), 4)
	return p, c, c.ConnectToNSQD(addr)
}

// askNSQ sends requests and counts the answers, by go-nsq alone: ADDRESS DURATION.
func askNSQ(args []string) error {
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	answers := make(chan struct{}, outstanding)
	p, _, err := nsqPair(args[0], replyQueue, func(*nsq.Producer, *nsq.Message) error {
		answers <- struct{}{}
		return nil
	})
	if err != nil {
		return err
	}
	var m meter
	window := make(chan struct{}, outstanding)
	go m.requests(func(body []byte) bool {
		window <- struct{}{}
		return p.PublishAsync(requestQueue, append([]byte(nil), body...), nil) == nil
	})
	for range answers {
		<-window
		if m.answered(length) {
			break
		}
	}
	return m.print()
}

// echoAMQP answers requests as RabbitMQ's tutorial does, with a prefetch of 100, until it is
// killed: URL.
func echoAMQP(args []string) error {
	ch, err := classicChannel(args[0])
	if err != nil {
		return err
	}
	if err := ch.Qos(100, 0, false); err != nil {
		return err
	}
	requests, err := ch.Consume(requestQueue+"-classic", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for d := range requests {
		reply := amqp.Publishing{CorrelationId: d.CorrelationId, Body: d.Body}
		if err := ch.Publish("", d.ReplyTo, false, false, reply); err != nil {
			return err
		}
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return errors.New("the connection broke")
}

// classicChannel has a queue for requests that is neither durable nor replicated.
func classicChannel(url string) (*amqp.Channel, error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	_, err = ch.QueueDeclare(requestQueue+"-classic", false, false, false, false, nil)
	return ch, err
}

// askAMQP sends requests without confirms and counts the answers: URL DURATION.
func askAMQP(args []string) error {
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ch, err := classicChannel(args[0])
	if err != nil {
		return err
	}
	replies, err := ch.QueueDeclare("", false, false, true, false, nil)
	if err != nil {
		return err
	}
	answers, err := ch.Consume(replies.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	var m meter
	window := make(chan struct{}, outstanding)
	id := 0
	go m.requests(func(body []byte) bool {
		window <- struct{}{}
		id++
		request := amqp.Publishing{CorrelationId: strconv.Itoa(id), ReplyTo: replies.Name, Body: body}
		return ch.Publish("", requestQueue+"-classic", false, false, request) == nil
	})
	for range answers {
		<-window
		if m.answered(length) {
			break
		}
	}
	return m.print()
}

// serveNATS is a nats-server with JetStream, until it is killed: DIR. It prints its address.
func serveNATS(args []string) error {
	if len(args) != 1 {
		return errors.New("nats-server: wants DIR")
	}
	n, err := node.NATSServer(args[0], nil)
	if err != nil {
		return err
	}
	fmt.Println(n.Addr)
	untilKilled()
	return n.Stop()
}

func untilKilled() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	<-told
}
