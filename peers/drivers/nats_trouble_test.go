package drivers_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/nats"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
)

// What is wrong with a URL's server is said in one sentence, at once.
func TestNATSSaysWhatIsWrongWhenItOpens(t *testing.T) {
	t.Parallel()
	locked := startNATS(t, func(o *server.Options) { o.Username, o.Password = "ann", "right" })
	tokens := startNATS(t, func(o *server.Options) { o.Authorization = "right" })
	plain, err := node.NATSServer(t.TempDir(), func(o *server.Options) { o.JetStream = false })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Stop() })
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	_ = free.Close()
	for url, says := range map[string]string{
		"nats://ann:wrong@" + locked.Addr:        `does not let us in as user "ann"`,
		locked.URL:                               "does not let us in without a user",
		"nats://wrong@" + tokens.Addr:            "does not let us in with these credentials",
		plain.URL:                                "start nats-server with -js",
		"nats://" + nobody:                       "no NATS server at " + nobody,
		"nats://" + nobody + "," + nobody:        "no NATS server at " + nobody + "," + nobody,
		"nats://no-such-host.invalid:4222":       "no-such-host.invalid",
		tokens.URL + "?creds=/no/such/file":      "/no/such/file",
		locked.URL + "?ca=/no/such/ca.pem":       "/no/such/ca.pem",
		"nats://right@" + tokens.Addr + "?tls=1": "has no TLS",
	} {
		start := time.Now()
		b, err := millrace.Open(t.Context(), url)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s was opened", url)
			continue
		}
		t.Log(err)
		if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want one line that says %q", url, err, says)
		}
		if errors.Is(err, millrace.ErrRefused) != strings.Contains(says, "does not let us in") {
			t.Errorf("%q: is it a refusal? %v", err, errors.Is(err, millrace.ErrRefused))
		}
		if strings.Contains(err.Error(), "wrong@1") || time.Since(start) > 5*time.Second {
			t.Errorf("%q tells the password, or took %v", err, time.Since(start))
		}
	}
	useNATS(t, "nats://ann:right@"+locked.Addr).publish("t", "x")
	useNATS(t, "nats://right@"+tokens.Addr).publish("t", "x")
	denied := &server.User{Username: "bob", Password: "b", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"$JS.API.INFO", "$JS.API.STREAM.>", "$JS.API.CONSUMER.>"}}}}
	bob := useNATS(t, "nats://bob:b@"+startNATS(t, func(o *server.Options) { o.Users = []*server.User{denied} }).Addr)
	if err := bob.Publish(t.Context(), "t", millrace.Message{}); !errors.Is(err, millrace.ErrRefused) {
		t.Errorf("publish without permission: %v", err)
	}
	// With several servers, one that answers is enough.
	useNATS(t, "nats://ann:right@"+nobody+","+locked.Addr).publish("t", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := millrace.Open(ctx, locked.URL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open with a context that is over: %v", err)
	}
}

func TestNATSOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, err := node.Certificate(dir, "server")
	if err != nil {
		t.Fatal(err)
	}
	mine, mineKey, err := node.Certificate(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	secure := func(verify bool) *node.NATS {
		cfg, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: cert, KeyFile: key, CaFile: mine, Verify: verify, Timeout: 2})
		if err != nil {
			t.Fatal(err)
		}
		return startNATS(t, func(o *server.Options) { o.TLS, o.TLSConfig, o.TLSVerify, o.TLSTimeout = true, cfg, verify, 2 })
	}
	open, strict := secure(false), secure(true)
	useNATS(t, open.URL+"?ca="+cert).publish("t", "x")
	useNATS(t, open.URL+"?tls=true&ca="+cert).publish("t", "x")
	useNATS(t, strict.URL+"?ca="+cert+"&cert="+mine+"&key="+mineKey).publish("t", "x")
	for url, says := range map[string]string{
		open.URL:                   "ca=FILE",
		open.URL + "?ca=" + mine:   "ca=FILE",
		strict.URL + "?ca=" + cert: "cert=FILE&key=FILE",
	} {
		b, err := millrace.Open(t.Context(), url)
		if err == nil {
			_ = b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", url, err, says)
		}
	}
}

// While there is no server, everything waits, and says for what when it gives up.
func TestNATSWaitsForAServerThatIsAway(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.publish("t", "0")
	u.must(sub.Ack(t.Context(), u.receive(sub, 1)...))
	time.Sleep(100 * time.Millisecond) // an ack is on its way
	u.must(n.Stop())
	for what, call := range map[string]func(context.Context) error{
		"publish": func(ctx context.Context) error { return u.Publish(ctx, "u", millrace.Message{}) },
		"declare": func(ctx context.Context) error { return u.Declare(ctx, "new", "c") },
		"delete":  func(ctx context.Context) error { return u.Delete(ctx, "old", "") },
		"depth": func(ctx context.Context) error {
			_, err := u.Depth(ctx, "t", "c")
			return err
		},
		"subscribe": func(ctx context.Context) error {
			_, err := u.Subscribe(ctx, "t", "c", millrace.SubscribeOptions{})
			return err
		},
		"receive": func(ctx context.Context) error {
			_, err := sub.Receive(ctx, make([]millrace.Delivery, 1))
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := call(ctx)
		cancel()
		t.Log(err)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waited for the connection to "+n.Addr) {
			t.Errorf("%s: %v", what, err)
		}
	}
	back := make(chan error, 1)
	go func() {
		time.Sleep(200 * time.Millisecond)
		back <- n.Start()
	}()
	u.publish("t", "1", "2") // waits for it
	u.wantBodies(u.receive(sub, 2), "1", "2")
	u.must(<-back)
}

// Connections that break all the time, with answers lost before, lose no message and
// double none.
func TestNATSPublishesOnceOverABadNetwork(t *testing.T) {
	t.Parallel()
	const batches, size = 40, 50
	n := startNATS(t, nil)
	p := newNATSProxy(t, n.Addr)
	u, far := useNATS(t, n.URL), useNATS(t, p.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: batches * size, Lease: time.Minute})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(40 * time.Millisecond):
			}
			p.Mute(false)
			time.Sleep(5 * time.Millisecond)
			p.Cut(false)
		}
	}()
	for i := range batches {
		msgs := make([]millrace.Message, size)
		for k := range msgs {
			msgs[k].Body = []byte(strconv.Itoa(i*size + k))
		}
		u.must(far.Publish(t.Context(), "t", msgs...))
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	<-stopped
	var want []string
	for i := range batches * size {
		want = append(want, strconv.Itoa(i))
	}
	u.wantBodies(u.receive(sub, batches*size), want...)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if n, err := sub.Receive(ctx, make([]millrace.Delivery, 1)); n != 0 {
		t.Errorf("%d messages too many (%v)", n, err)
	}
}

// A job goes on while connections break, and while the server is started again.
func TestNATSMapsTasksThroughTrouble(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	p := newNATSProxy(t, n.Addr)
	u := useNATS(t, p.URL)
	natsWorker(t, p.URL, "square", 2*time.Millisecond)
	natsWorker(t, n.URL, "square", 2*time.Millisecond)
	natsSquares(t, u, "square", 2000, gather.Config{Resend: 2 * time.Second}, func(count int) {
		switch {
		case count == 1000:
			u.must(n.Stop())
			u.must(n.Start())
		case count%300 == 0:
			p.Cut(false)
		}
	})
	useNATS(t, n.URL).wantIdle("square")
}

// A server that was started again is asked at once for what the one before was asked for.
func TestNATSAsksANewServerAtOnce(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.publish("t", "1")
	u.must(sub.Ack(t.Context(), u.receive(sub, 1)...))
	time.Sleep(100 * time.Millisecond) // an ack is on its way
	u.must(n.Stop())
	u.must(n.Start())
	start := time.Now()
	u.publish("t", "2")
	u.wantBodies(u.receive(sub, 1), "2")
	if took := time.Since(start); took > 2500*time.Millisecond {
		t.Errorf("it came after %v", took)
	}
}

// A connection that is there and says nothing is noticed, and made again.
func TestNATSNoticesAHalfOpenConnection(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a quarter of a minute to believe it")
	}
	n := startNATS(t, nil)
	p := newNATSProxy(t, n.Addr)
	u := useNATS(t, p.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	p.Mute(true)
	start := time.Now()
	u.publish("t", "x")
	u.wantBodies(u.receive(sub, 1), "x")
	t.Logf("after %v", time.Since(start))
}

// A message that is not ours is a dead letter when its envelope cannot be read, and a task
// without a reply when it has none; the worker lives on.
func TestNATSForeignMessages(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	natsWorker(t, n.URL, "square", 0)
	u.must(u.Declare(t.Context(), "square", millrace.WorkChannel))
	dead := u.subscribe("square"+millrace.DeadSuffix, "dead", millrace.SubscribeOptions{})
	js := natsStreams(t, n.URL)
	for _, m := range []*natsio.Msg{
		{Data: []byte("3"), Header: natsio.Header{nats.HeaderEnvelope: {"id=%zz"}}},
		{Data: []byte("4"), Header: natsio.Header{"X-Other": {"a\tb"}}}, // runs, and nobody is told
		{Data: []byte("not a number")},
	} {
		m.Subject = nats.Subject("square")
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	ds := u.receive(dead, 2)
	u.wantBodies(ds, "3", "not a number")
	for _, d := range ds {
		t.Logf("%s: %s", d.Body, d.Headers.Text(millrace.HeaderError))
	}
	natsSquares(t, u, "square", 10, gather.Config{}, nil)
	u.wantIdle("square")
}

func TestNATSRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	n := startNATS(t, func(o *server.Options) { o.MaxPayload = 1 << 20 }) // the default
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	ids := len("NATS/1.0\r\nNats-Msg-Id: \r\n\r\n") + 25
	most := strings.Repeat("x", 1<<20-ids)
	u.publish("t", most)
	d := u.receive(sub, 1)
	u.wantBodies(d, most)
	err := u.Publish(t.Context(), "t", millrace.Message{Body: []byte("before")}, millrace.Message{Body: []byte(most + "x")})
	if !errors.Is(err, millrace.ErrTooLarge) || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("%v", err)
	}
	h := millrace.Headers(nil).Append("k", strings.Repeat("\x00", 400<<10)) // three bytes each
	if err := u.Publish(t.Context(), "t", millrace.Message{Headers: h}); !errors.Is(err, millrace.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	u.publish("t", "after")
	u.wantBodies(u.receive(sub, 1), "after")
}

// A server without room refuses messages until there is some, and loses none that it took.
func TestNATSRefusesWhatItHasNoSpaceFor(t *testing.T) {
	t.Parallel()
	n := startNATS(t, func(o *server.Options) { o.JetStreamMaxStore, o.JetStreamMaxMemory = 1<<20, 1<<20 })
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	body := strings.Repeat("x", 100<<10)
	taken := 0
	for ; taken < 20; taken++ {
		if err := u.Publish(t.Context(), "t", millrace.Message{Body: []byte(body)}); err != nil {
			if !errors.Is(err, millrace.ErrNoSpace) {
				t.Fatal(err)
			}
			t.Log(err)
			break
		}
	}
	if taken == 0 || taken == 20 {
		t.Fatalf("%d messages were taken", taken)
	}
	ds := u.receive(sub, taken)
	u.must(sub.Ack(t.Context(), ds...))
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := u.Publish(t.Context(), "t", millrace.Message{Body: []byte(body)})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after there is room again: %v", err)
		}
	}
}
