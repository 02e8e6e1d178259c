package millrace

import (
	"context"
	"errors"
	"time"
)

// Errors that every driver returns for the same things, wrapped with what was
// being done.
var (
	// ErrClosed is returned when a broker or subscription was closed before or
	// while it was used.
	ErrClosed = errors.New("millrace: closed")
	// ErrLeaseLost is returned when a delivery is acked, nacked or extended whose
	// lease has ended: the message is, or will be, somebody else's.
	ErrLeaseLost = errors.New("millrace: lease lost")
	// ErrTooLarge is returned when a message is larger than the broker takes. It
	// will be refused every time.
	ErrTooLarge = errors.New("millrace: message too large")
	// ErrRefused is returned when the broker does not let this user in, or not do what was
	// asked: it will be refused every time.
	ErrRefused = errors.New("millrace: refused")
	// ErrNotFound is returned when a topic or channel does not exist.
	ErrNotFound = errors.New("millrace: no such topic or channel")
	// ErrNoSpace is returned when the broker's disk is full. What was accepted
	// before is intact; publishing works again when there is space.
	ErrNoSpace = errors.New("millrace: no space left on the broker's disk")
)

// Broker is a connection to the system that holds the messages. Get one with Open.
//
// All methods may be called at the same time from several goroutines.
type Broker interface {
	// Declare makes sure that the topic, and unless channel is "" the channel, exist.
	// A message published before a channel exists does not reach that channel, with
	// one exception: the first channel of a topic gets all that waits in the topic.
	Declare(ctx context.Context, topic, channel string) error

	// Publish appends the messages to the topic, in order, and creates the topic if
	// need be. When it returns nil they all are as safe as the broker makes them.
	// When it returns an error some of them, the first ones, may nevertheless have
	// been accepted. Returns an error that wraps ErrTooLarge before any of them was
	// accepted, ErrNoSpace, ErrClosed, ErrBadName, ErrRefused, or the context's cause.
	Publish(ctx context.Context, topic string, msgs ...Message) error

	// Subscribe starts to consume from a channel, and creates it if need be.
	Subscribe(ctx context.Context, topic, channel string, opts SubscribeOptions) (Subscription, error)

	// Depth tells how much waits in a channel. Returns an error that wraps
	// ErrNotFound when there is no such channel.
	Depth(ctx context.Context, topic, channel string) (Depth, error)

	// Delete removes the channel with all that waits in it, or the whole topic when
	// channel is "". Subscriptions to it end. Deleting what does not exist is no error.
	Delete(ctx context.Context, topic, channel string) error

	// Close ends all subscriptions, makes safe what was accepted and lets go of
	// everything. It is an error to use the broker afterwards.
	Close() error
}

// SubscribeOptions are the terms of a subscription. The zero value is usable.
type SubscribeOptions struct {
	// Prefetch is the most deliveries the subscription holds without having acked
	// or nacked them. 0 means DefaultPrefetch.
	Prefetch int
	// Lease is how long a delivery is held before it must be acked, nacked or
	// extended. 0 means DefaultLease.
	Lease time.Duration
}

// The defaults of SubscribeOptions.
const (
	DefaultPrefetch = 256
	DefaultLease    = 30 * time.Second
)

// WithDefaults returns o with its zero fields filled.
func (o SubscribeOptions) WithDefaults() SubscribeOptions {
	if o.Prefetch <= 0 {
		o.Prefetch = DefaultPrefetch
	}
	if o.Lease <= 0 {
		o.Lease = DefaultLease
	}
	return o
}

// Subscription is one consumer of a channel. Its methods may be called at the same
// time from several goroutines.
//
// Ack, Nack and Extend take deliveries of this subscription in any order and in
// batches. They do what they can for all of them; when the lease of some had ended
// they return an error that wraps ErrLeaseLost, a *LeaseError where it is known
// which ones.
type Subscription interface {
	// Receive waits until there is at least one delivery, fills buf with what is
	// there without waiting longer, and returns how many it filled. Returns an error
	// that wraps ErrClosed when the subscription was closed or its channel deleted,
	// or the context's cause. With an error the number is 0: a delivery is never
	// lost between the two.
	Receive(ctx context.Context, buf []Delivery) (int, error)
	// Ack says that the messages were handled: they are not delivered again.
	Ack(ctx context.Context, ds ...Delivery) error
	// Nack gives the messages back, to be delivered again after the delay.
	Nack(ctx context.Context, delay time.Duration, ds ...Delivery) error
	// Extend gives the deliveries a whole new lease from now.
	Extend(ctx context.Context, ds ...Delivery) error
	// SetPrefetch changes the most deliveries held; 0 pauses the subscription.
	SetPrefetch(n int)
	// Close gives back what is held, at once, and ends the subscription.
	Close() error
}

// LeaseError tells which deliveries had lost their lease. It wraps ErrLeaseLost.
type LeaseError struct {
	// Lost are the positions, among the deliveries that were passed, of those whose
	// lease had ended.
	Lost []int
}

func (e *LeaseError) Error() string { return ErrLeaseLost.Error() }

// Unwrap returns ErrLeaseLost.
func (e *LeaseError) Unwrap() error { return ErrLeaseLost }

// Depth is what a channel holds.
type Depth struct {
	// Ready messages wait to be delivered.
	Ready int64
	// InFlight messages are held by consumers under a lease.
	InFlight int64
	// Deferred messages wait for their time.
	Deferred int64
}
