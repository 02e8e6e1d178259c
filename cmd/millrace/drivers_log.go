package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// driverLog is where drivers log to, which is slog's default: a line is said as map says
// things. What they log while the broker is opened is held back: when that fails, the error
// tells it all.
type driverLog struct {
	say func(format string, args ...any)

	mu     sync.Mutex // guards what follows; never held while saying
	opened bool
	held   []string
}

// Enabled implements slog.Handler.
func (*driverLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler.
func (l *driverLog) Handle(_ context.Context, r slog.Record) error {
	var about strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&about, ", %s: %v", a.Key, a.Value)
		return true
	})
	line := r.Message
	if about.Len() > 0 {
		line += " (" + about.String()[2:] + ")"
	}
	l.mu.Lock()
	hold := !l.opened
	if hold {
		l.held = append(l.held, line)
	}
	l.mu.Unlock()
	if !hold {
		l.say("%s", line)
	}
	return nil
}

// WithAttrs and WithGroup implement slog.Handler. Drivers use neither.
func (l *driverLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *driverLog) WithGroup(string) slog.Handler { return l }

// open says what was held back, and holds nothing back any more.
func (l *driverLog) open() {
	l.mu.Lock()
	held := l.held
	l.opened, l.held = true, nil
	l.mu.Unlock()
	for _, line := range held {
		l.say("%s", line)
	}
}
