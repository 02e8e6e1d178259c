package fleet

import (
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace"
)

var (
	// ErrNoQueue is returned by Open when the broker has no such queue: nobody has asked or
	// worked for it yet. It wraps millrace.ErrNotFound.
	ErrNoQueue = fmt.Errorf("fleet: no such queue: %w", millrace.ErrNotFound)
	// ErrNoWorker is returned when no worker of the queue answers.
	ErrNoWorker = errors.New("fleet: no worker answers")
	// ErrNoReplica is returned by Retire when there are workers but not one replica that is
	// not leaving already.
	ErrNoReplica = errors.New("fleet: no worker has a replica")
	// ErrTooFew is returned by Scale when it is to take away more replicas than there are.
	ErrTooFew = errors.New("fleet: there are not so many replicas")
	// ErrTooMany is returned by Scale when it is to make more replicas than the workers may
	// have.
	ErrTooMany = errors.New("fleet: more replicas than the workers may have")
	// ErrChanging is returned when the workers refuse again and again, because somebody else
	// changes them at the same time.
	ErrChanging = errors.New("fleet: somebody else changes the workers at the same time")
	// ErrClosed is returned when the Fleet was closed.
	ErrClosed = errors.New("fleet: closed")
)

// UnconfirmedError is returned when workers that were told something did not confirm it.
type UnconfirmedError struct {
	// Told is what they were told, as in "have 4 replicas instead of 3", in the order of
	// Workers.
	Told []string
	// Workers are they, as they were when they were last heard.
	Workers []Worker
	// Err is why the broker could not tell them; nil when it could.
	Err error
}

// Error names the workers.
func (e *UnconfirmedError) Error() string {
	var all []string
	for i, w := range e.Workers {
		all = append(all, fmt.Sprintf("%s, which was told to %s", w.Name(), e.Told[i]))
	}
	text := "fleet: no confirmation from " + strings.Join(all, "; ")
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

func unconfirmed(missing []told, err error) *UnconfirmedError {
	e := &UnconfirmedError{Err: err}
	e.add(missing)
	return e
}

func (e *UnconfirmedError) add(more []told) {
	for _, t := range more {
		e.Workers = append(e.Workers, t.worker)
		e.Told = append(e.Told, t.words)
	}
}
