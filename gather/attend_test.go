package gather_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/worker"
)

// replyTopicOf makes the handler tell where the answers to its first task go.
func replyTopicOf(h worker.Handler) (worker.Handler, chan string) {
	told := make(chan string, 1)
	return worker.HandlerFunc(func(ctx context.Context, task *worker.Task) ([]byte, error) {
		select {
		case told <- task.Headers.Text(millrace.HeaderReplyTo):
		default:
		}
		return h.Handle(ctx, task)
	}), told
}

func TestAClientIsSeenAsLongAsItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		h, told := replyTopicOf(upper)
		stop := serve(t, b, h, worker.Config{})
		c := newClient(t, b, gather.Config{})
		_, err := gather.Call[string](t.Context(), c, "a")
		must(t, err)
		id, ok := control.ClientOf(<-told)
		if !ok {
			t.Fatal("the reply topic does not tell the client's id")
		}
		seen := func() bool {
			_, err := b.Depth(t.Context(), control.Topic(queue), control.ClientChannel(id))
			if err != nil && !errors.Is(err, millrace.ErrNotFound) {
				t.Error(err)
			}
			return err == nil
		}
		time.Sleep(time.Hour)
		if !seen() {
			t.Error("it is not seen")
		}
		must(t, b.Delete(t.Context(), control.Topic(queue), control.ClientChannel(id)))
		time.Sleep(5 * time.Second)
		if !seen() {
			t.Error("it is not seen again")
		}
		must(t, c.Close(t.Context()))
		if seen() {
			t.Error("it is seen after its end")
		}
		must(t, b.Close())
		stop()
	})
}

// A client whose network was gone for minutes is taken for dead by the workers.
func TestAClientWhoseReplyTopicWasRemovedGetsItsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		release := make(chan struct{})
		h, told := replyTopicOf(staller(release))
		stop := serve(t, b, h, worker.Config{Replicas: 2})
		c := newClient(t, b, gather.Config{})
		p, err := gather.Submit[string](t.Context(), c, "slow")
		must(t, err)
		replyTo := <-told
		must(t, b.Delete(t.Context(), replyTo, ""))
		synctest.Wait()
		if _, err := b.Depth(t.Context(), replyTo, control.ReplyChannel); err != nil {
			t.Errorf("the reply topic was not made again: %v", err)
		}
		close(release)
		if out, err := p.Wait(t.Context()); err != nil || !strings.EqualFold(out, "slow") {
			t.Error(out, err)
		}
		closeAll(t, c, b, stop)
	})
}
