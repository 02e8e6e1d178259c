package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
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
func (o *deadOptions) peek(ctx context.Context, use func([]millrace.Delivery) (enough bool, err error)) error {
	address := peekAddress(o.broker)
	if address == "" {
		return errNoPeek
	}
	for from := uint64(1); ; {
		page, err := peekPage(ctx, address, broker.DeadTopic(o.topic), from)
		if err != nil || len(page) == 0 {
			return err
		}
		if enough, err := use(page); enough || err != nil {
			return err
		}
		from = page[len(page)-1].Seq + 1
	}
}

// peekAddress is where the HTTP API of a broker is, "" where there is none that can be known:
// as for package driver/nsq at the next port, unless the URL says where.
func peekAddress(brokerURL string) string {
	at, err := parseNSQ(brokerURL)
	if err != nil || at == nil || at.tls != nil || strings.Contains(at.tcp, ",") {
		return ""
	}
	if u, err := url.Parse(brokerURL); err == nil && u.Query().Has("http") {
		return at.http
	}
	host, port, err := net.SplitHostPort(at.tcp)
	n, numberErr := strconv.Atoi(port)
	if err != nil || numberErr != nil {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}

// peekPage asks for the next letters; none when there are no more.
func peekPage(ctx context.Context, address, topic string, from uint64) ([]millrace.Delivery, error) {
	query := url.Values{
		"topic": {topic}, "channel": {millrace.DeadChannel},
		"n": {strconv.Itoa(broker.MaxPeek)}, "from": {strconv.FormatUint(from, 10)},
	}
	ctx, cancel := context.WithTimeout(ctx, peekWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/peek?"+query.Encode(), nil)
	if err != nil {
		return nil, errNoPeek
	}
	if token := os.Getenv(tokenVariable); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errNoPeek
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Message  string
		Messages []description
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
		return deliveries(answer.Messages), nil
	case answer.Message == "TOPIC_NOT_FOUND" || answer.Message == "CHANNEL_NOT_FOUND":
		return nil, nil
	case resp.StatusCode == http.StatusOK:
		return nil, fmt.Errorf("the answer of %s cannot be read: %w", address, err)
	}
	return nil, errNoPeek
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
