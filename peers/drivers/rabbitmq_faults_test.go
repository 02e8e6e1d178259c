package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/peers/node"
)

// A task that takes longer than consumer_timeout is not cut off while its lease is extended,
// and is given to somebody else, as its next attempt, when its subscription dies.
func rabbitLongTasks(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	u := r.user(t, url)
	const lease = 2 * time.Second
	acks := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
	dies := r.user(t, url).subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
	stops := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
	e := u.subscribe("e", "c"+millrace.EphemeralSuffix, millrace.SubscribeOptions{Lease: lease})
	u.publish("t", "x", "x", "x")
	u.publish("e", "x")
	long := map[millrace.Subscription]millrace.Delivery{}
	for _, sub := range []millrace.Subscription{acks, dies, stops, e} {
		long[sub] = u.receive(sub, 1)[0]
	}
	watcher := u.subscribe("t", "c", millrace.SubscribeOptions{})
	for start := time.Now(); time.Since(start) < 2*rabbitTimeout+2*time.Second; time.Sleep(lease / 4) {
		for sub, d := range long {
			if err := sub.Extend(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	u.nothing(watcher, 10*time.Millisecond)
	u.must(acks.Ack(t.Context(), long[acks]))
	u.must(e.Ack(t.Context(), long[e]))
	start := time.Now()
	u.must(dies.Close())
	if d := u.receive(watcher, 1)[0]; d.Attempt != 2 {
		t.Errorf("attempt %d", d.Attempt)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it came after %v", took)
	}
	// The last one is not extended any more.
	if d := u.receive(watcher, 1)[0]; d.Attempt != 2 {
		t.Errorf("attempt %d", d.Attempt)
	}
	u.nothing(watcher, 100*time.Millisecond)
	u.nothing(e, 10*time.Millisecond)
}

// A server that is short of memory takes no messages: Publish waits, and says why. What is
// there goes on being consumed.
func rabbitBlocked(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	u := r.user(t, url)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Second})
	u.publish("t", "before", "too")
	set := func(watermark string) {
		t.Helper()
		if _, err := r.Ctl(t.Context(), "set_vm_memory_high_watermark", watermark); err != nil {
			t.Fatal(err)
		}
	}
	set("0.000001")
	ended := false
	defer func() {
		if !ended {
			set("0.4")
		}
	}()
	for range 2 { // the first one is on its way when the server says that it is blocked
		err := u.Publish(soonCtx(t, time.Second), "t", millrace.Message{Body: []byte("blocked")})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "memory") {
			t.Errorf("publish: %v", err)
		}
	}
	ds := u.receive(sub, 2)
	u.must(sub.Ack(t.Context(), ds[0]))
	u.must(sub.Nack(t.Context(), 0, ds[1]))
	u.wantBodies(u.receive(sub, 1), string(ds[1].Body))
	later := r.user(t, url).subscribe("t", "c", millrace.SubscribeOptions{})

	published := make(chan error, 1)
	go func() {
		published <- u.Publish(soonCtx(t, 20*time.Second), "t", millrace.Message{Body: []byte("waited")})
	}()
	time.Sleep(100 * time.Millisecond)
	set("0.4")
	ended = true
	u.must(<-published)
	for {
		d := u.receive(later, 1)[0]
		u.must(later.Ack(t.Context(), d))
		if string(d.Body) == "waited" {
			break
		}
	}
}

// While the server is killed and started again nobody gets an error, and nothing is lost that was
// published before, during or after.
func rabbitDies(t *testing.T, r *rabbit) {
	const publishers, batch = 4, 20
	u := r.user(t, r.vhost(t))
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	e := u.subscribe("e", "c"+millrace.EphemeralSuffix, millrace.SubscribeOptions{})
	// RabbitMQ 3.10 itself loses the files of a queue that was made less than a second before.
	time.Sleep(2 * time.Second)

	ctx := soonCtx(t, 60*time.Second)
	enough := make(chan struct{})
	published := make([]int, publishers)
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for {
				select {
				case <-enough:
					return
				default:
				}
				var msgs []millrace.Message
				for i := range batch {
					msgs = append(msgs, millrace.Message{Body: fmt.Append(nil, p, "-", published[p]+i)})
				}
				if err := u.Publish(ctx, "t", msgs...); err != nil {
					t.Error(err)
					return
				}
				published[p] += batch
			}
		})
	}
	wg.Go(func() {
		defer close(enough)
		time.Sleep(time.Second)
		if err := r.Kill(); err != nil {
			t.Error(err)
		}
		// What waits says for what.
		err := u.Publish(soonCtx(t, 200*time.Millisecond), "e", millrace.Message{Body: []byte("too late")})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection") {
			t.Errorf("publish while there is no server: %v", err)
		}
		if err := r.Start(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
	})
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()

	count := map[string]int{}
	missing := func() (n int) {
		for p := range publishers {
			for i := range published[p] {
				if count[fmt.Sprint(p, "-", i)] == 0 {
					n++
				}
			}
		}
		return n
	}
	buf := make([]millrace.Delivery, 500)
	for over := false; !over || missing() > 0; {
		n, err := sub.Receive(soonCtx(t, time.Second), buf)
		for _, d := range buf[:n] {
			count[string(d.Body)]++
		}
		if ctx.Err() != nil {
			t.Fatalf("%d messages are missing: %v", missing(), err)
		}
		if err := sub.Ack(ctx, buf[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
			t.Fatal(err)
		}
		select {
		case <-done:
			over = true
		default:
		}
	}
	all, again := 0, 0
	for _, n := range count {
		all++
		again += n - 1
	}
	t.Logf("%d messages, %d of them came again", all, again)

	// The ephemeral channel was made again, and its subscription goes on.
	u.must(u.Publish(ctx, "e", millrace.Message{Body: []byte("alive")}))
	u.wantBodies(u.receive(e, 1), "alive")
}

// A server may take less than the driver does: the first time it says so by closing the channel,
// under whatever else is on its way.
func rabbitSmallMessages(t *testing.T, r *rabbit) {
	u := r.user(t, r.vhost(t))
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	large := millrace.Message{Body: make([]byte, rabbitMaxSize+1)}
	for range 2 {
		err := u.Publish(t.Context(), "t", large, millrace.Message{Body: []byte("after")})
		if !errors.Is(err, millrace.ErrTooLarge) {
			t.Errorf("publish: %v", err)
		}
	}
	headers := millrace.Headers(nil).Append("k", strings.Repeat("v", 100<<10))
	if err := u.Publish(t.Context(), "t", millrace.Message{Headers: headers}); !errors.Is(err, millrace.ErrTooLarge) {
		t.Errorf("publish of large headers: %v", err)
	}
	// The largest that fits: each key twice, so that the list is beside the properties.
	headers = nil
	for len(headers) < 60<<10 {
		headers = headers.Append("key", strings.Repeat("v", 1000)).Append(fmt.Sprint("k", len(headers)), strings.Repeat("v", 1000))
	}
	fits := millrace.Message{Headers: headers, Body: make([]byte, rabbitMaxSize-len(headers))}
	u.must(u.Publish(t.Context(), "t", fits))
	d := u.receive(sub, 1)[0]
	if string(d.Headers) != string(headers) || len(d.Body) != len(fits.Body) {
		t.Errorf("%d bytes of headers and %d of body came", len(d.Headers), len(d.Body))
	}
}

// A client whose network is gone without a word is as good as dead: the server gives what it held to
// others within its lease, and it comes back by itself when there is a network.
func rabbitNetwork(t *testing.T, r *rabbit) {
	const lease = 3 * time.Second
	url := r.vhost(t)
	proxy := newNATSProxy(t, r.AMQP)
	far := r.user(t, strings.Replace(url, r.AMQP, strings.TrimPrefix(proxy.URL, "nats://"), 1))
	near := r.user(t, url)
	sub := far.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
	far.publish("t", "held")
	late := far.receive(sub, 1)
	start := time.Now()
	proxy.Mute(true)
	other := near.subscribe("t", "c", millrace.SubscribeOptions{})
	d := near.receive(other, 1)
	near.wantBodies(d, "held")
	if took := time.Since(start); took > lease+time.Second {
		t.Errorf("it came to another after %v", took)
	}
	if err := sub.Ack(t.Context(), late...); !errors.Is(err, millrace.ErrLeaseLost) {
		t.Errorf("a late ack: %v", err)
	}
	near.must(other.Ack(t.Context(), d...))
	near.must(other.Close())

	// What is published into the silence is published again when that is noticed.
	far.must(far.Publish(soonCtx(t, 15*time.Second), "t", millrace.Message{Body: []byte("after the silence")}))
	ds := far.receive(sub, 1)
	far.wantBodies(ds, "after the silence")

	proxy.Cut(true)
	err := far.Publish(soonCtx(t, 300*time.Millisecond), "t", millrace.Message{Body: []byte("x")})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection") {
		t.Errorf("publish without a network: %v", err)
	}
	_, err = sub.Receive(soonCtx(t, 300*time.Millisecond), make([]millrace.Delivery, 1))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection") {
		t.Errorf("receive without a network: %v", err)
	}
	proxy.Cut(false)
	far.must(far.Publish(soonCtx(t, 10*time.Second), "t", millrace.Message{Body: []byte("back")}))
	for {
		d := far.receive(sub, 1)[0]
		far.must(sub.Ack(t.Context(), d))
		if string(d.Body) == "back" {
			return
		}
	}
}

func (r *rabbit) secure(vhost, parameters string) string {
	_, vhost, _ = strings.Cut(strings.TrimPrefix(vhost, "amqp://"), "/")
	vhost, _, _ = strings.Cut(vhost, "?")
	return "amqps://guest:guest@" + r.AMQPS + "/" + vhost + parameters
}

func rabbitTLS(t *testing.T, r *rabbit) {
	vhost := r.vhost(t)
	u := r.user(t, r.secure(vhost, "?ca="+r.ca))
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.publish("t", "secret")
	u.wantBodies(u.receive(sub, 1), "secret")
}

// What is wrong is said in one sentence that names it, at once.
func rabbitBadURLs(t *testing.T, r *rabbit) {
	good := r.vhost(t)
	host := "amqp://guest:guest@" + r.AMQP
	other, key, err := node.Certificate(t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	nobody := filepath.Join(t.TempDir(), "nobody")
	for _, c := range []struct {
		name, url string
		says      []string
	}{
		{"nobody listens", "amqp://127.0.0.1:1/", []string{"cannot reach", "127.0.0.1:1", "connection refused"}},
		{"no such host", "amqp://no-such-host.invalid/", []string{"no-such-host.invalid"}},
		{"password", strings.Replace(good, ":guest@", ":wrong@", 1), []string{`user "guest"`, "password"}},
		{"user", strings.Replace(good, "//guest:", "//stranger:", 1), []string{`user "stranger"`}},
		{"vhost", host + "/no-such", []string{`vhost "no-such"`, "exist"}},
		{"vhost with a slash", host + "/a/b", []string{"%2F"}},
		{"parameter", host + "/?hearbeat=3", []string{`"hearbeat"`, "consumer_timeout"}},
		{"duration", host + "/?consumer_timeout=30", []string{"consumer_timeout=30", "30m"}},
		{"port", "amqp://localhost:/", []string{"port"}},
		{"no host", "amqp:///", []string{"amqp://host/vhost"}},
		{"ca without TLS", host + "/?ca=x", []string{"ca=x", "amqps"}},
		{"unknown authority", r.secure(good, ""), []string{"certificate", "ca=FILE"}},
		{"another authority", r.secure(good, "?ca="+other), []string{"certificate", "ca=FILE"}},
		{"no such file", r.secure(good, "?ca="+nobody), []string{nobody}},
		{"no certificate in it", r.secure(good, "?ca="+key), []string{key, "PEM"}},
		{"cert without key", r.secure(good, "?ca="+r.ca+"&cert="+other), []string{"cert and key"}},
		{"a certificate of nobody", r.secure(good, "?ca="+r.ca+"&cert="+other+"&key="+key), []string{"this client's certificate"}},
		{"TLS where there is none", strings.Replace(r.secure(good, "?ca="+r.ca), r.AMQPS, r.AMQP, 1), []string{"TLS", "amqp://"}},
		{"no TLS where there is some", strings.Replace(host, r.AMQP, r.AMQPS, 1) + "/", []string{"TLS", "amqps://"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := millrace.Open(soonCtx(t, 15*time.Second), c.url)
			if err == nil {
				_ = b.Close()
				t.Fatal("it was opened")
			}
			if refused := c.name == "password" || c.name == "user" || c.name == "vhost"; errors.Is(err, millrace.ErrRefused) != refused {
				t.Errorf("%v: is it a refusal? %v", err, !refused)
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v: it does not say %q", err, says)
				}
			}
			if strings.Contains(err.Error(), "wrong@") || strings.Contains(err.Error(), "guest:guest") {
				t.Errorf("%v: it tells the password", err)
			}
		})
	}
}
