package jobs_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// runsForeignMessages: another program has put messages into the queue. One that says nothing
// of a reply is a task; one whose envelope cannot be decoded is kept as a dead letter; the
// worker goes on.
func runsForeignMessages(t *testing.T, on *system) {
	const queue = "foreign"
	out := filepath.Join(t.TempDir(), "out")
	w := commandWorker(t, on.url, queue, ttl, "sh", "-c", `echo "got $1" >>"$2"`, "sh", "{}", out)
	w.saysWithin(patience, "replica started")
	b := on.open(t)
	if err := b.Declare(t.Context(), queue, millrace.WorkChannel); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []bool{true, false, true, false} {
		if err := on.foreign(t.Context(), queue, "from elsewhere", broken); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "the tasks have run", func() bool {
		text, _ := os.ReadFile(out)
		return string(text) == strings.Repeat("got from elsewhere\n", 2)
	})
	letters, err := b.Subscribe(t.Context(), queue+millrace.DeadSuffix, millrace.DeadChannel, millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for kept := 0; kept < 2; {
		buf := make([]millrace.Delivery, 2)
		n, err := letters.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("%d dead letters: %v", kept, err)
		}
		for _, d := range buf[:n] {
			if !strings.Contains(d.Headers.Text(millrace.HeaderError), "cannot be") || d.Headers.Text(millrace.HeaderQueue) != queue {
				t.Errorf("a dead letter with %q", d.Headers)
			}
		}
		kept += n
		if err := letters.Ack(ctx, buf[:n]...); err != nil {
			t.Error(err)
		}
	}
	j := newJob(t, on, queue, 1)
	j.asker.give("1")
	_ = j.asker.stdin.Close()
	if line := <-j.asker.lines; line != "1\t" && line != "" {
		t.Errorf("the worker answers %q", line)
	}
	if err := j.asker.wait(); err != nil {
		t.Errorf("map: %v\n%s", err, j.asker.stderr())
	}
	on.wantNothingLeft(t, queue)
}

// foreignNSQ publishes by the HTTP API of a node.
func foreignNSQ(addr string) func(context.Context, string, string, bool) error {
	return func(ctx context.Context, topic, body string, broken bool) error {
		if broken {
			body = "MR1 {\"failures\":\"many\"}\n" + body
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/pub?topic="+topic, strings.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("POST /pub: %s", resp.Status)
		}
		return nil
	}
}

func foreignAMQP(url string) func(context.Context, string, string, bool) error {
	return func(ctx context.Context, queue, body string, broken bool) error {
		conn, err := amqp.Dial(url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		m := amqp.Publishing{Body: []byte(body)}
		if broken {
			m.Headers = amqp.Table{"failures": "many"}
		}
		if err := ch.PublishWithContext(ctx, "", queue, true, false, m); err != nil {
			return err
		}
		return ch.Close() // which is answered when the message was taken
	}
}

func foreignNATS(url string) func(context.Context, string, string, bool) error {
	return func(ctx context.Context, topic, body string, broken bool) error {
		m := natsio.NewMsg("millrace." + topic)
		m.Data = []byte(body)
		if broken {
			m.Header.Set("MR1", "failures=many")
		}
		return onNATS(url, func(js jetstream.JetStream) error {
			_, err := js.PublishMsg(ctx, m)
			return err
		})
	}
}
