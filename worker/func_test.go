package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/worker"
)

func TestFuncPassesBytesAndStringsAsTheyAre(t *testing.T) {
	ctx := context.Background()
	bytes := worker.Func(func(_ context.Context, b []byte) ([]byte, error) { return append([]byte("<"), b...), nil })
	if got, err := bytes.Handle(ctx, &worker.Task{Payload: []byte("{x")}); err != nil || string(got) != "<{x" {
		t.Errorf("%q, %v", got, err)
	}
	text := worker.Func(func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	if got, err := text.Handle(ctx, &worker.Task{Payload: []byte(`"a"`)}); err != nil || string(got) != `"A"` {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFuncTakesAndReturnsAnythingElseAsJSON(t *testing.T) {
	type point struct{ X, Y int }
	sum := worker.Func(func(_ context.Context, p point) (map[string]int, error) { return map[string]int{"sum": p.X + p.Y}, nil })
	if got, err := sum.Handle(context.Background(), &worker.Task{Payload: []byte(`{"X":1,"Y":2}`)}); err != nil || string(got) != `{"sum":3}` {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := sum.Handle(context.Background(), &worker.Task{Payload: []byte(`{`)}); err == nil || !strings.Contains(err.Error(), "decode the input as worker_test.point") {
		t.Error(err)
	}
	bad := worker.Func(func(context.Context, int) (func(), error) { return func() {}, nil })
	if _, err := bad.Handle(context.Background(), &worker.Task{Payload: []byte(`1`)}); err == nil || !strings.Contains(err.Error(), "encode the output") {
		t.Error(err)
	}
}

func TestErrorsKeepWhatTheyWrap(t *testing.T) {
	cause := errors.New("cause")
	for _, err := range []error{worker.Permanent(cause), worker.RetryAfter(cause, 1), worker.Redeliver(cause)} {
		if !errors.Is(err, cause) || err.Error() != "cause" {
			t.Errorf("%v", err)
		}
	}
	if worker.Permanent(nil) != nil || worker.RetryAfter(nil, 1) != nil || worker.Redeliver(nil) != nil {
		t.Error("an error was made of none")
	}
}
