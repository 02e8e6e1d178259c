package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// mortuary is a directory with the dead letters of a topic, which a broker has made of
// messages with these bodies.
func mortuary(t *testing.T, topic, channel string, msgs ...millrace.Message) (at string) {
	t.Helper()
	dir := t.TempDir()
	b, err := broker.Open(broker.Options{Dir: dir, MaxAttempts: 1, Sync: broker.SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	c, err := b.Subscribe(topic, channel, millrace.SubscribeOptions{Prefetch: len(msgs)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(topic, msgs); err != nil {
		t.Fatal(err)
	}
	buf := make([]millrace.Delivery, len(msgs))
	for got := 0; got < len(msgs); {
		n, err := c.Receive(t.Context(), buf[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	if err := c.Nack(t.Context(), 0, buf...); err != nil {
		t.Fatal(err)
	}
	if n, err := c.TryReceive(buf); n > 0 || err != nil {
		t.Fatal(n, err)
	}
	eventually(t, func() bool { return b.Lookup(topic).Lookup(channel).Stats().Dead == uint64(len(msgs)) }, "not all are dead")
	return "file://" + dir
}

func bodies(from, to int) (msgs []millrace.Message) {
	for i := from; i < to; i++ {
		msgs = append(msgs, millrace.Message{Body: strconv.AppendInt(nil, int64(i), 10)})
	}
	return msgs
}

// waiting takes all that waits in a channel, and returns the bodies.
func waiting(t *testing.T, at, topic, channel string) (ds []millrace.Delivery) {
	t.Helper()
	b, err := millrace.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	depth, err := b.Depth(t.Context(), topic, channel)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Subscribe(t.Context(), topic, channel, millrace.SubscribeOptions{Prefetch: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	buf := make([]millrace.Delivery, 100)
	for int64(len(ds)) < depth.Ready+depth.InFlight {
		n, err := s.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("after %d of %+v: %v", len(ds), depth, err)
		}
		if err := s.Ack(ctx, buf[:n]...); err != nil {
			t.Fatal(err)
		}
		for _, d := range buf[:n] {
			d.Headers, d.Body = slices.Clone(d.Headers), slices.Clone(d.Body)
			ds = append(ds, d)
		}
	}
	return ds
}

// resolved is what the user asks for with these arguments.
func resolved(at, topic string, ids ...string) *deadOptions {
	o := &deadOptions{topic: topic, broker: at, ids: map[string]bool{}}
	for _, id := range ids {
		o.ids[id] = true
	}
	return o
}

// A letter that is tried again is the message that it was, to the byte.
func TestALetterIsRevivedAsItWas(t *testing.T) {
	t.Parallel()
	own := millrace.Headers(nil).Append("error", "its own").Append("color", "red").Append("channel", "its own too").Append("error", "again")
	at := mortuary(t, "orders", "billing", millrace.Message{Headers: own, Body: []byte("x\x00y")}, millrace.Message{Body: []byte("plain")})
	var list bytes.Buffer
	if err := (&deadOptions{topic: "orders", broker: at, count: 5}).list(t.Context(), &list, &list); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`1         billing  delivered once without being finished  x\x00y` + "\n", "  plain\n"} {
		if !strings.Contains(list.String(), want) {
			t.Errorf("the list lacks %q:\n%s", want, list.String())
		}
	}
	var out bytes.Buffer
	if err := resolved(at, "orders").retry(t.Context(), &out); err != nil || out.String() != "2 dead letters published to orders again\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	ds := waiting(t, at, "orders", "billing")
	if len(ds) != 2 || !bytes.Equal(ds[0].Headers, own) || string(ds[0].Body) != "x\x00y" || len(ds[1].Headers) > 0 {
		t.Errorf("what came back is %+v", ds)
	}
	if left := waiting(t, at, "orders.dead", "dead"); len(left) > 0 {
		t.Errorf("%d letters are left", len(left))
	}
}

// A task whose answer was awaited has all its retries again, and asks the same.
func TestAWorkersLetterIsRevivedAsATask(t *testing.T) {
	t.Parallel()
	task := millrace.Headers(nil).Append("id", "j-1").Append("reply-to", "r").Append("channel", "its own")
	letter := millrace.Headers(nil).Append("error", "no").Append("error-kind", "failed").Append("attempts", "4").
		Append("exit-code", "1").Append("queue", "q").Append("channel", "work").Append("sequence", "7").
		Append("published", "2026-01-02T03:04:05Z")
	letter = append(letter, task...)
	if got := revived(&millrace.Delivery{Message: millrace.Message{Headers: letter}}); !bytes.Equal(got.Headers, task) {
		t.Errorf("headers %q", got.Headers)
	}
}

// One that stands behind many others is found, and the others stay.
func TestLettersAreChosen(t *testing.T) {
	t.Parallel()
	const n = 2500 // more than are held at a time
	for name, c := range map[string]struct {
		options deadOptions
		want    []string
	}{
		"by id":        {deadOptions{ids: map[string]bool{"00000000000009c0": true, "0000000000000002": true}}, []string{"1", "2495"}},
		"the oldest":   {deadOptions{count: 3}, []string{"0", "1", "2"}},
		"by a channel": {deadOptions{channel: "nobody's"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := mortuary(t, "t", "c", bodies(0, n)...)
			o := c.options
			o.topic, o.broker = "t", at
			if err := o.retry(t.Context(), new(bytes.Buffer)); err != nil {
				t.Error(err)
			}
			var got []string
			for _, d := range waiting(t, at, "t", "c") {
				got = append(got, string(d.Body))
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("messages %v were tried again, want %v", got, c.want)
			}
			b, err := millrace.Open(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			if d, err := b.Depth(t.Context(), "t.dead", "dead"); d.Ready+d.Deferred != int64(n-len(c.want)) || err != nil {
				t.Errorf("%+v letters are left, %v", d, err)
			}
		})
	}
}

// What dies again at once is not tried again at once: that would never end.
func TestWhatDiesAgainWaitsForTheNextTime(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--sync", "never", "--max-attempts", "1")
	b := s.open(t)
	c, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan string, 1000)
	go func() {
		buf := make([]millrace.Delivery, 10)
		for {
			n, err := c.Receive(context.Background(), buf)
			if err != nil {
				return
			}
			for _, d := range buf[:n] {
				refused <- string(d.Body)
			}
			_ = c.Nack(context.Background(), 0, buf[:n]...)
		}
	}()
	if err := b.Publish(t.Context(), "t", bodies(0, 10)...); err != nil {
		t.Fatal(err)
	}
	s.awaitDead("t", "c", 10)
	for round := range 3 {
		out, err := millraceCommand(t, "dead", "retry", "t", "--broker", s.url()).CombinedOutput()
		if err != nil || string(out) != "10 dead letters published to t again\n" {
			t.Errorf("%v: %s", err, out)
		}
		s.awaitDead("t", "c", 10*(round+2))
	}
	if len(refused) != 40 {
		t.Errorf("%d deliveries", len(refused))
	}
}

// url is how millrace reaches the broker.
func (s *served) url() string {
	_, port, _ := net.SplitHostPort(s.http)
	return "nsq://" + s.tcp + "?http=" + port
}

func (s *served) open(t *testing.T) millrace.Broker {
	t.Helper()
	b, err := millrace.Open(t.Context(), s.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// awaitDead waits until a channel has given up so many messages.
func (s *served) awaitDead(topic, channel string, n int) {
	s.t.Helper()
	line := fmt.Sprintf("millrace_channel_dead_letters_total{channel=%q,topic=%q} %d\n", channel, topic, n)
	eventually(s.t, func() bool {
		_, metrics := s.get("/metrics")
		return strings.Contains(metrics, line)
	}, "there are not as many dead letters as expected: "+line)
}

// Looking at them takes none away, not even from whoever is at them; and it is no delivery.
func TestListingLettersDisturbsNobody(t *testing.T) {
	t.Parallel()
	at := mortuary(t, "t", "c", bodies(0, 1200)...)
	s := serveProcess(t, "millrace", "--data-path", strings.TrimPrefix(at, "file://"))
	held, err := s.open(t).Subscribe(t.Context(), "t.dead", "dead", millrace.SubscribeOptions{Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	var one [1]millrace.Delivery
	if _, err := held.Receive(t.Context(), one[:]); err != nil || string(one[0].Body) != "0" {
		t.Fatalf("%s, %v", one[0].Body, err)
	}
	for range 2 {
		var out, notes bytes.Buffer
		if err := (&deadOptions{topic: "t", broker: s.url(), count: 1199, channel: "c"}).list(t.Context(), &out, &notes); err != nil {
			t.Error(err)
		}
		if n := strings.Count(out.String(), "delivered once"); n != 1199 || notes.String() != "there are more: see -n\n" {
			t.Errorf("%d letters, %q", n, notes.String())
		}
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	for _, d := range waiting(t, s.url(), "t.dead", "dead") {
		if want := uint32(1); d.Attempt != want && string(d.Body) != "0" {
			t.Fatalf("letter %s has been delivered %d times", d.Body, d.Attempt)
		}
	}
	var out, notes bytes.Buffer
	if err := (&deadOptions{topic: "t", broker: s.url(), count: 1}).list(t.Context(), &out, &notes); err != nil || out.Len() > 0 || notes.String() != "no dead letters of t\n" {
		t.Errorf("of none it lists %q, %q, %v", out.String(), notes.String(), err)
	}
}

// refusing is a broker that takes no messages.
type refusing struct{ millrace.Broker }

func (refusing) Publish(context.Context, string, ...millrace.Message) error {
	return millrace.ErrNoSpace
}

var registerRefusing = sync.OnceFunc(func() {
	millrace.Register("refusing", func(ctx context.Context, u *url.URL) (millrace.Broker, error) {
		b, err := millrace.Open(ctx, "file://"+u.Path)
		return refusing{b}, err
	})
})

// What cannot be published stays a letter.
func TestALetterStaysUntilItsMessageIsSafe(t *testing.T) {
	t.Parallel()
	registerRefusing()
	at := mortuary(t, "t", "c", bodies(0, 3)...)
	var out bytes.Buffer
	err := resolved(strings.Replace(at, "file:", "refusing:", 1), "t").retry(t.Context(), &out)
	if !errors.Is(err, millrace.ErrNoSpace) || out.String() != "0 dead letters published to t again\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if n := len(waiting(t, at, "t.dead", "dead")); n != 3 {
		t.Errorf("%d of 3 letters are left", n)
	}
}

// However often it is killed in the middle, every letter gets back.
func TestRetryKilledInTheMiddleLosesNoLetter(t *testing.T) {
	t.Parallel()
	const n = 20_000
	at := mortuary(t, "t", "c", bodies(0, n)...)
	s := serveProcess(t, "millrace", "--data-path", strings.TrimPrefix(at, "file://"), "--sync", "never")
	killed := 0
	for range 6 {
		retry := millraceCommand(t, "dead", "retry", "t", "--broker", s.url())
		if err := retry.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(40)) * time.Millisecond)
		_ = retry.Process.Signal(syscall.SIGKILL)
		if retry.Wait() != nil {
			killed++
		}
	}
	if out, err := millraceCommand(t, "dead", "retry", "t", "--broker", s.url()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	back := map[string]int{}
	for _, d := range waiting(t, s.url(), "t", "c") {
		back[string(d.Body)]++
	}
	twice := 0
	for _, times := range back {
		if times > 1 {
			twice++
		}
	}
	t.Logf("killed %d times; %d of %d messages are there more than once", killed, twice, n)
	if len(back) != n {
		t.Errorf("%d of %d messages are back", len(back), n)
	}
	if _, stats := s.get("/stats?format=json&topic=t.dead"); !strings.Contains(stats, `"channel_name":"dead","depth":0,"backend_depth":0,"in_flight_count":0,"deferred_count":0`) {
		t.Errorf("letters are left: %s", stats)
	}
}

func TestAnExcerptIsOneLineThatATerminalCanBearToSee(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"short":                  "short",
		"exactly 10":             "exactly 10",
		"more than 10":           "more than …",
		"a\nb\x1b[2J":            `a\nb\x1b[2…`,
		"\xff\xfe":               "��",
		strings.Repeat("é", 10):  strings.Repeat("é", 10),
		strings.Repeat("é", 11):  strings.Repeat("é", 10) + "…",
		strings.Repeat("x", 500): "xxxxxxxxxx…",
	} {
		if got := excerpt([]byte(text), 10); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// A topic without dead letters, and one that there is not, are two things.
func TestThatThereIsNoSuchTopicIsSaid(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if exit, stderr := pub(t, s, "a\n", "there"); exit != 0 {
		t.Fatal(stderr)
	}
	var out, notes bytes.Buffer
	if err := resolved(s.url(), "there").list(t.Context(), &out, &notes); err != nil || notes.String() != "no dead letters of there\n" {
		t.Errorf("%v, %q", err, &notes)
	}
	notes.Reset()
	err := resolved(s.url(), "nosuch").list(t.Context(), &out, &notes)
	if err == nil || err.Error() != "there is no topic or queue nosuch at this broker" || notes.Len()+out.Len() > 0 {
		t.Errorf("%v, %q", err, &notes)
	}
}

func TestTheTopicOfTheLettersStandsForItsOwn(t *testing.T) {
	for name, want := range map[string]string{
		"t": "t", "t.dead": "t", "t.dead#ephemeral": "t#ephemeral", "t#ephemeral": "t#ephemeral", ".dead": ".dead", "t.dead.dead": "t.dead",
	} {
		if got := livingTopic(name); got != want {
			t.Errorf("%s stands for %s, want %s", name, got, want)
		}
	}
}
