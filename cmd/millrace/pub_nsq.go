package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace"
)

// nsqPublisher publishes by NSQ's protocol. One goroutine uses it at a time.
type nsqPublisher struct {
	at       *nsqAddress
	producer *nsq.Producer // nil: not connected
}

// nsqConfig is how we speak to the broker at the address.
func nsqConfig(at *nsqAddress) *nsq.Config {
	cfg := nsq.NewConfig()
	cfg.UserAgent = "millrace/" + version()
	cfg.AuthSecret = os.Getenv(tokenVariable)
	cfg.TlsV1, cfg.TlsConfig = at.tls != nil, at.tls
	// A broker that has gone without a word is noticed in this time.
	cfg.HeartbeatInterval, cfg.ReadTimeout = 5*time.Second, 15*time.Second
	cfg.DialTimeout, cfg.WriteTimeout = 5*time.Second, 15*time.Second
	return cfg
}

func dialPublisher(at *nsqAddress) (publisher, error) {
	p := &nsqPublisher{at: at}
	return p, p.connect()
}

// connect connects, unless that was done.
func (p *nsqPublisher) connect() error {
	if p.producer != nil {
		return nil
	}
	producer, err := nsq.NewProducer(p.at.tcp, nsqConfig(p.at))
	if err != nil {
		return fmt.Errorf("broker %s: %w", p.at.tcp, err)
	}
	producer.SetLogger(nil, nsq.LogLevelMax)
	if err := producer.Ping(); err != nil {
		producer.Stop()
		return cannotReach(p.at.tcp, err)
	}
	p.producer = producer
	return nil
}

// cannotReach says why there is no conversation with a broker.
func cannotReach(address string, err error) error {
	reason := strings.TrimPrefix(err.Error(), "failed to IDENTIFY - ")
	switch {
	case errors.As(err, new(*net.OpError)), errors.As(err, new(*net.DNSError)):
		return fmt.Errorf("no broker answers at %s: %s; does millrace serve run there?", address, sentence(err))
	case strings.Contains(reason, "Auth Required"):
		return fmt.Errorf("the broker at %s wants a token: set $%s", address, tokenVariable)
	}
	return fmt.Errorf("the broker at %s does not let us in: %s", address, reason)
}

// Publish publishes the bodies of the messages in one batch. After an error the next one
// connects anew: go-nsq's producer can do that by itself, but not at once, and not without
// a data race.
func (p *nsqPublisher) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := p.connect(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.producer.Stop)
	defer stop()
	var err error
	if len(msgs) == 1 {
		err = p.producer.Publish(topic, msgs[0].Body)
	} else {
		bodies := make([][]byte, len(msgs))
		for i := range msgs {
			bodies[i] = msgs[i].Body
		}
		err = p.producer.MultiPublish(topic, bodies)
	}
	if err == nil {
		return nil
	}
	_ = p.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r := nsqRefusal(err); r != nil {
		return r
	}
	return err
}

// Close ends the connection.
func (p *nsqPublisher) Close() error {
	if p.producer != nil {
		p.producer.Stop()
		p.producer = nil
	}
	return nil
}

// nsqRefusal returns the refusal that an error of the protocol is; nil for others.
func nsqRefusal(err error) *refusal {
	var protocol nsq.ErrProtocol
	if !errors.As(err, &protocol) {
		return nil
	}
	code, _, _ := strings.Cut(protocol.Reason, " ")
	switch code {
	case "E_BAD_MESSAGE", "E_BAD_BODY":
		return &refusal{reason: protocol.Reason, message: true}
	case "E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED":
		return nil // it is full, or ends
	}
	return &refusal{reason: protocol.Reason}
}
