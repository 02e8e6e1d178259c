package worker_test

import (
	"context"
	"testing"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/worker"
)

func TestATaskIsAnswered(t *testing.T) {
	ctx := t.Context()
	b, err := millrace.Open(ctx, "mem:")
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(b, "q", worker.Func(func(_ context.Context, s string) (string, error) { return s + "!", nil }), worker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx) }()
	b.Declare(ctx, "r", "c")
	sub, _ := b.Subscribe(ctx, "r", "c", millrace.SubscribeOptions{})
	b.Publish(ctx, "q", millrace.Message{Body: []byte("hi"), Headers: millrace.Headers(nil).Append("id", "x-1").Append("reply-to", "r")})
	buf := make([]millrace.Delivery, 10)
	n, err := sub.Receive(ctx, buf)
	t.Log(n, err, string(buf[0].Body))
	if err := w.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", w.Status())
}
