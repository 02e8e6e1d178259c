package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/worker"
)

// unready is a broker that declares nothing, as a cluster without a leader.
type unready struct{ millrace.Broker }

func (unready) Declare(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// A worker that is asked to stop while it waits for its queue has done all that there was to do.
func TestAWorkerThatHadNotBegunStopsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) { return nil, nil })
		w, err := worker.New(unready{}, "q", none, worker.Config{})
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan os.Signal, 1)
		ctx, kill := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() {
			ended <- serveUntilTold(ctx, kill, w, workOptions{queue: "q", grace: time.Minute}, &signals{stop: stop}, slog.New(slog.NewTextHandler(io.Discard, nil)))
		}()
		time.Sleep(time.Second)
		stop <- syscall.SIGTERM
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
