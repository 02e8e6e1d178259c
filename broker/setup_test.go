package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdDirectory); dir != "" {
		os.Exit(holdDir(dir)) // see TestADirectoryInUseByAnotherProcess
	}
	goleak.VerifyTestMain(m)
}

// bench is a broker under test, with short words for what tests do all the time.
type bench struct {
	*broker.Broker
	t testing.TB
}

func open(t testing.TB, opts broker.Options) bench {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	b, err := broker.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return bench{b, t}
}

// inEveryKind runs the test in virtual time with a broker in memory and one in files.
func inEveryKind(t *testing.T, test func(t *testing.T, b bench)) {
	for _, kind := range []string{"memory", "files"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := broker.Options{}
				if kind == "files" {
					opts = broker.Options{Dir: "data"}.On(vfs.NewMem())
				}
				test(t, open(t, opts))
			})
		})
	}
}

func (b bench) subscribe(topic, channel string, opts millrace.SubscribeOptions) *broker.Consumer {
	b.t.Helper()
	c, err := b.Subscribe(topic, channel, opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (b bench) publish(topic string, bodies ...string) {
	b.t.Helper()
	if err := b.Publish(topic, messages(bodies...)); err != nil {
		b.t.Fatal(err)
	}
}

func (b bench) depth(topic, channel string) millrace.Depth {
	b.t.Helper()
	d, err := b.Depth(topic, channel)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func messages(bodies ...string) []millrace.Message {
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = []byte(body)
	}
	return msgs
}

// numbers are bodies from "from" up to, not including, to.
func numbers(from, to int) []string {
	var bodies []string
	for i := from; i < to; i++ {
		bodies = append(bodies, strconv.Itoa(i))
	}
	return bodies
}

// receive receives n messages, which should be there soon.
func receive(t testing.TB, c *broker.Consumer, n int) []millrace.Delivery {
	t.Helper()
	return receiveWithin(t, 20*time.Second, c, n)
}

func receiveWithin(t testing.TB, patience time.Duration, c *broker.Consumer, n int) []millrace.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, io.ErrNoProgress)
	defer cancel()
	var all []millrace.Delivery
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		k, err := c.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, buf[:k]...)
	}
	return all
}

// nothing makes sure that nothing is delivered for the time, which should be virtual.
func nothing(t testing.TB, c *broker.Consumer, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var buf [1]millrace.Delivery
	if n, err := c.Receive(ctx, buf[:]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %s, %v; want nothing for %v", describe(buf[:n]), err, wait)
	}
}

func ack(t testing.TB, c *broker.Consumer, ds ...millrace.Delivery) {
	t.Helper()
	if err := c.Ack(t.Context(), ds...); err != nil {
		t.Error(err)
	}
}

// describe is "body@attempt body@attempt …".
func describe(ds []millrace.Delivery) string {
	var words []string
	for _, d := range ds {
		words = append(words, fmt.Sprintf("%s@%d", d.Body, d.Attempt))
	}
	return strings.Join(words, " ")
}

// wantDeliveries compares deliveries, in any order, with "body@attempt …".
func wantDeliveries(t testing.TB, got []millrace.Delivery, want string) {
	t.Helper()
	have, wants := strings.Fields(describe(got)), strings.Fields(want)
	slices.Sort(have)
	slices.Sort(wants)
	if !slices.Equal(have, wants) {
		t.Errorf("got %s, want %s", describe(got), want)
	}
}

func asLeaseError(err error, lost **millrace.LeaseError) bool { return errors.As(err, lost) }

// copyTree copies a directory with its files as they are now, synced or not: which is
// what the death of a process leaves.
func copyTree(t interface{ Fatal(...any) }, from, to *vfs.Mem, name string) {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	names, err := from.List(name)
	if err == nil {
		must(to.MkdirAll(name))
		for _, base := range names {
			copyTree(t, from, to, name+"/"+base)
		}
		return
	}
	old, err := from.Open(name)
	must(err)
	defer old.Close()
	size, err := old.Size()
	must(err)
	content := make([]byte, size)
	_, err = old.ReadAt(content, 0)
	must(err)
	file, err := to.Create(name)
	must(err)
	_, err = file.WriteAt(content, 0)
	must(err)
	must(file.Close())
}
