package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// errNoPeek is returned where what waits cannot be looked at: by brokers other than
// millrace serve, and when its HTTP API is not reached.
var errNoPeek = errors.New("the broker cannot show what waits")

// peekWithin bounds how long an answer of the broker's HTTP API may take.
const peekWithin = 10 * time.Second

// peek shows the letters to use, page by page, by the broker's HTTP API: so nobody's are
// taken away, not even for a moment.
func (o *deadOptions) peek(ctx context.Context, use func([]millrace.Delivery) (enough bool, err error)) (err error) {
	a, err := openAPI(o.broker)
	if errors.Is(err, millrace.ErrBadURL) {
		return errNoPeek // or nonsense, as opening it will say
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	for from := uint64(1); ; {
		page, err := a.letters(ctx, broker.DeadTopic(o.topic), from)
		if err != nil || len(page) == 0 {
			return err
		}
		if enough, err := use(page); enough || err != nil {
			return err
		}
		from = page[len(page)-1].Seq + 1
	}
}

// letters asks for the next letters; none when there are no more.
func (a *api) letters(ctx context.Context, topic string, from uint64) ([]millrace.Delivery, error) {
	params := url.Values{
		"topic": {topic}, "channel": {millrace.DeadChannel},
		"n": {strconv.Itoa(broker.MaxPeek)}, "from": {strconv.FormatUint(from, 10)},
	}
	soon, cancel := context.WithTimeout(ctx, peekWithin)
	defer cancel()
	var page struct{ Messages []description }
	err := a.get(soon, "/peek", params, &page)
	var refused *apiError
	switch {
	case errors.As(err, &refused) && (refused.word == noTopic || refused.word == noChannel):
		return nil, nil
	case refused != nil, errors.Is(err, errNoAnswer), soon.Err() != nil && ctx.Err() == nil:
		return nil, errNoPeek
	}
	return deliveries(page.Messages), err
}

// noSuchTopic returns an error when it is known that there is no such topic, nor one of its
// dead letters.
func (o *deadOptions) noSuchTopic(ctx context.Context) error {
	a, err := openAPI(o.broker)
	if err != nil {
		return nil //nolint:nilerr // it cannot be known
	}
	defer func() { _ = a.close() }()
	ctx, cancel := context.WithTimeout(ctx, peekWithin)
	defer cancel()
	for _, topic := range []string{o.topic, broker.DeadTopic(o.topic)} {
		if there, err := a.hasTopic(ctx, topic); there || err != nil {
			return nil //nolint:nilerr // the same
		}
	}
	return fmt.Errorf("there is no topic or queue %s at this broker", o.topic)
}

// deliveries is what was described.
func deliveries(described []description) []millrace.Delivery {
	ds := make([]millrace.Delivery, len(described))
	for i, d := range described {
		body := d.Base64
		if d.Body != nil {
			body = []byte(*d.Body)
		}
		ds[i] = millrace.Delivery{Seq: d.Sequence, Attempt: d.Attempt, Published: d.Published, Message: millrace.Message{Body: body}}
		for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
			ds[i].Headers = ds[i].Headers.Append(key, d.Headers[key])
		}
	}
	return ds
}
