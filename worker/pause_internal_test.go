package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace"
)

// A replica may take a task that waits in the moment before that is given back.
func TestAReplicaThatTakesATaskInAPauseDoesNotBeginIt(t *testing.T) {
	handler := HandlerFunc(func(context.Context, *Task) ([]byte, error) {
		t.Error("it was begun")
		return nil, nil
	})
	w, err := New(nil, "q", handler, Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.pause.on.Store(true)
	it := &newSlab([]millrace.Delivery{{}}).items[0]
	if err := w.handle(t.Context(), it); !errors.Is(err, errPaused) {
		t.Errorf("handle returned %v", err)
	}
}
