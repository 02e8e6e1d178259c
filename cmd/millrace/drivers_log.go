package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// driverLog is where drivers log to, which is slog's default: what they log becomes a line
// that is said.
type driverLog struct {
	say func(r slog.Record, line string)
}

// logDrivers has say told, from now on, what drivers log.
func logDrivers(say func(r slog.Record, line string)) { slog.SetDefault(slog.New(&driverLog{say})) }

// sayRecord says what a driver logs as this program says things.
func sayRecord(_ slog.Record, line string) { fmt.Fprintln(os.Stderr, "millrace: "+line) }

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
	l.say(r, line)
	return nil
}

// WithAttrs and WithGroup implement slog.Handler. Drivers use neither.
func (l *driverLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *driverLog) WithGroup(string) slog.Handler { return l }
