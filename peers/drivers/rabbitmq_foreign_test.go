package drivers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

const nodeExample = "../../examples/amqp-node"

// nodeScript is a script of the example, not yet started. It is killed with the test.
func nodeScript(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	modules, err := node.NPM(t.Context(), nodeExample)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join(nodeExample, name)}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	return cmd
}

// bareURL is the URL without what only our driver understands.
func bareURL(url string) string {
	bare, _, _ := strings.Cut(url, "?")
	return bare
}

// squares serves the queue with a worker of ours until the test ends.
func squares(t *testing.T, b millrace.Broker, queue string) {
	t.Helper()
	serve(t, b, queue, worker.Func(func(_ context.Context, input string) (string, error) {
		n, err := strconv.Atoi(input)
		if err != nil {
			return "", worker.Permanent(fmt.Errorf("%s is not a number", input))
		}
		return strconv.Itoa(n * n), nil
	}))
}

func serve(t *testing.T, b millrace.Broker, queue string, h worker.Handler) {
	t.Helper()
	w, err := worker.New(b, queue, h, worker.Config{Replicas: 4, Retries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Declare(t.Context(), queue, millrace.WorkChannel); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("the worker ended with %v", err)
		}
	})
}

func rabbitForeignWorker(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	script := nodeScript(t, "worker.js", bareURL(url), "squares")
	var said bytes.Buffer
	script.Stdout, script.Stderr = &said, &said
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = script.Process.Kill()
		_ = script.Wait()
		if t.Failed() {
			t.Log("the worker said: " + said.String())
		}
	}()

	b := r.open(t, url)
	client, err := gather.New(t.Context(), b, "squares", gather.Config{})
	if err != nil {
		t.Fatal(err)
	}
	inputs := []string{"3", "4", "many", "5"}
	var got []string
	for result, err := range gather.MapOrdered[string](soonCtx(t, 20*time.Second), client, slices.Values(inputs)) {
		var failed *gather.TaskError
		switch {
		case errors.As(err, &failed):
			got = append(got, failed.Message)
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, result.Value)
		}
	}
	if want := []string{"9", "16", "many is not a number", "25"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func rabbitForeignClient(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	squares(t, r.open(t, url), "squares")
	ctx := soonCtx(t, 20*time.Second)
	script := nodeScript(t, "client.js", bareURL(url), "squares", "3", "4", "many", "5")
	stop := context.AfterFunc(ctx, func() { _ = script.Process.Kill() })
	defer stop()
	out, err := script.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(got)
	if want := []string{"3 -> 9", "4 -> 16", "5 -> 25", "many -> error: many is not a number"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// foreignChannel is a channel of a program that knows nothing of us.
func foreignChannel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	c, err := amqp.Dial(bareURL(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// A client that uses direct reply-to has a reply-to that no topic could be named; one with a queue of an
// odd name too. A retry of their tasks must still find them.
func rabbitDirectReply(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	b := r.open(t, url)
	var calls atomic.Int64
	serve(t, b, "flaky", worker.Func(func(_ context.Context, input string) (string, error) {
		if calls.Add(1)%2 == 1 {
			return "", errors.New("not the first time")
		}
		return "done: " + input, nil
	}))

	ch := foreignChannel(t, url)
	if _, err := ch.QueueDeclare("an odd name: ä/ö", false, true, true, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, replyTo := range []string{"amq.rabbitmq.reply-to", "an odd name: ä/ö"} {
		answers, err := ch.Consume(replyTo, "", true, true, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.PublishWithContext(t.Context(), "", "flaky", false, false, amqp.Publishing{
			ReplyTo: replyTo, CorrelationId: "größer than \x00", ContentType: "text/plain", Body: []byte("x"),
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-answers:
			if string(d.Body) != `done: x` || d.CorrelationId != "größer than \x00" {
				t.Errorf("%s: %q for %q, headers %v", replyTo, d.Body, d.CorrelationId, d.Headers)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no answer", replyTo)
		}
	}
}

// An answer to somebody who has gone is dropped, and leaves nothing behind.
func rabbitAnswerToNobody(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	b := r.open(t, url)
	squares(t, b, "squares")
	ch := foreignChannel(t, url)
	for i, replyTo := range []string{"amq.gen-gone", "gone", "back"} {
		if replyTo == "back" { // by when the answers before have been given
			if _, err := ch.QueueDeclare("back", false, true, true, false, nil); err != nil {
				t.Fatal(err)
			}
		}
		sent := amqp.Publishing{ReplyTo: replyTo, Body: []byte(strconv.Itoa(i))}
		if err := ch.PublishWithContext(t.Context(), "", "squares", true, false, sent); err != nil {
			t.Fatal(err)
		}
	}
	rabbitEventually(t, "the last answer comes", func() bool {
		d, ok, err := ch.Get("back", true)
		return err == nil && ok && string(d.Body) == "4"
	})
	if left := r.queues(t, url); slices.ContainsFunc(left, func(q string) bool { return strings.Contains(q, "gone") && !strings.HasPrefix(q, "millrace//") }) {
		t.Errorf("the answers to nobody have made queues: %q", left)
	}
}

// What other programs put into a queue is a task all the same, whatever its headers.
func rabbitForeignMessages(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	b := r.open(t, url)
	sub, err := b.Subscribe(t.Context(), "odd", millrace.WorkChannel, millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ch := foreignChannel(t, url)
	if err := ch.PublishWithContext(t.Context(), "odd", "any key", false, false, amqp.Publishing{
		ContentType: "application/json", CorrelationId: "7", Body: []byte("{}"), Type: "order",
		Headers: amqp.Table{
			"n": int32(5), "yes": true, "list": []any{"a", int64(2)}, "when": time.Unix(0, 0), "nothing": nil,
			"table": amqp.Table{"k": "v"}, "bytes": []byte{0, 255}, "id": "not ours", "x-custom": "left out",
			"millrace-headers": []byte("\xff not a list"), "millrace-attempts": "many",
		},
	}); err != nil {
		t.Fatal(err)
	}
	buf := make([]millrace.Delivery, 1)
	if _, err := sub.Receive(soonCtx(t, 10*time.Second), buf); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for key, value := range buf[0].Headers.All() {
		got[key] = value
	}
	want := map[string]string{
		"id": "7", "content-type": "application/json", "n": "5", "yes": "true", "list": `["a",2]`,
		"when": "1970-01-01T00:00:00Z", "nothing": "", "table": `{"k":"v"}`, "bytes": "\x00\xff",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || buf[0].Attempt != 1 {
		t.Errorf("attempt %d, headers %q, want %q", buf[0].Attempt, got, want)
	}
}
