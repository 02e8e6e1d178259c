package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// logLevel is the value of --log-level.
type logLevel slog.Level

// levelFatal logs only what ends the process, as nsqd's does.
const levelFatal = slog.LevelError + 4

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": levelFatal,
}

func (l *logLevel) String() string {
	for name, level := range levels {
		if level == slog.Level(*l) {
			return name
		}
	}
	return slog.Level(*l).String()
}

func (l *logLevel) Type() string { return "level" }

func (l *logLevel) Set(text string) error {
	level, ok := levels[strings.ToLower(text)]
	if !ok {
		return fmt.Errorf("write debug, info, warn, error or fatal")
	}
	*l = logLevel(level)
	return nil
}

// newLogger returns a logger of lines that begin with the prefix.
func newLogger(w io.Writer, prefix string, level slog.Leveler) *slog.Logger {
	if prefix != "" {
		w = &prefixed{w, prefix}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// prefixed writes something before each write: slog writes a line at a time.
type prefixed struct {
	io.Writer
	prefix string
}

func (p *prefixed) Write(line []byte) (int, error) {
	if _, err := p.Writer.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
