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

// nsqPublisher publishes by NSQ's protocol.
type nsqPublisher struct{ producer *nsq.Producer }

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
	producer, err := nsq.NewProducer(at.tcp, nsqConfig(at))
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", at.tcp, err)
	}
	producer.SetLogger(nil, nsq.LogLevelMax)
	if err := producer.Ping(); err != nil {
		return nil, cannotReach(at.tcp, err)
	}
	return &nsqPublisher{producer}, nil
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

// Publish publishes the bodies of the messages in one batch.
func (p *nsqPublisher) Publish(ctx context.Context, topic string, msgs ...millrace.Message) (err error) {
	stop := context.AfterFunc(ctx, p.producer.Stop)
	defer stop()
	if len(msgs) == 1 {
		err = p.producer.Publish(topic, msgs[0].Body)
	} else {
		bodies := make([][]byte, len(msgs))
		for i := range msgs {
			bodies[i] = msgs[i].Body
		}
		err = p.producer.MultiPublish(topic, bodies)
	}
	switch r := nsqRefusal(err); {
	case ctx.Err() != nil && err != nil:
		return context.Cause(ctx)
	case r != nil:
		return r
	}
	return err
}

// Close ends the connection.
func (p *nsqPublisher) Close() error {
	p.producer.Stop()
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
