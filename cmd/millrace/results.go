package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/task"
)

// showResults sends the inputs and writes what comes back, until all have a result.
// It returns why that ended early.
func (m *mapping) showResults(ctx context.Context) error {
	stream := gather.Map[[]byte, []byte]
	if m.keepOrder {
		stream = gather.MapOrdered[[]byte, []byte]
	}
	halted := false
	for r, err := range stream(ctx, m.client, m.in.all()) {
		m.showing.Store(true)
		var failed *gather.TaskError
		if err != nil && !errors.As(err, &failed) {
			return err
		}
		if err := m.show(&r, failed); err != nil {
			return err
		}
		if !halted && m.halt.reached(m.succeeded.Load(), m.failed.Load()) {
			if m.halt.now {
				return errHalted
			}
			halted = true
			m.haltSoon()
		}
		m.showing.Store(false)
	}
	return nil
}

// show writes one result; failed is nil when it is a value.
func (m *mapping) show(r *gather.Result[[]byte], failed *gather.TaskError) error {
	output, stderr := r.Value, r.Headers.Text(task.HeaderStderr)
	if failed != nil {
		output, _ = r.Headers.Get(task.HeaderStdout)
	}
	if m.tag {
		tag := append(bytes.ReplaceAll(r.Input, []byte{0}, []byte{' '}), '\t')
		output, stderr = tagLines(tag, output), string(tagLines(tag, []byte(stderr)))
	}
	// What a failed command wrote is shown once: a single line with the failure.
	told := stderr
	if failed != nil && !severalLines(stderr) {
		told = ""
	}
	m.screen.message(endLine(told))
	err := m.screen.result(output)
	if failed == nil {
		m.succeeded.Add(1)
	} else {
		m.failed.Add(1)
		m.say("task %d (%s) failed: %s", r.Index+1, printable(r.Input), m.reason(failed, told != ""))
	}
	switch {
	case errors.Is(err, syscall.EPIPE):
		return errStdoutClosed
	case err != nil:
		return fmt.Errorf("the results cannot be written: %w", err)
	}
	return nil
}

func severalLines(text string) bool {
	return strings.Contains(strings.TrimSpace(text), "\n")
}

// reason says in one line why a task failed. told says that what the command wrote on
// standard error has been shown.
func (m *mapping) reason(failed *gather.TaskError, told bool) string {
	text, attempts := failed.Message, "attempts"
	switch {
	case failed.Kind == gather.KindTimeout && m.timeout > 0:
		text = fmt.Sprintf("it took longer than %v and was killed", m.timeout)
	case failed.Kind == gather.KindKilled:
		// The last reason says more than that it happened so often.
		if _, last, ok := strings.Cut(text, lastReason); ok {
			text, attempts = last, "attempts, of which this was the last"
		}
	}
	if name, ok := strings.CutSuffix(text, ": command not found"); ok {
		text = explainStart(name, text)
	}
	head, end, several := strings.Cut(text, "\n")
	switch what, _, _ := strings.Cut(head, ": "); {
	case failed.ExitCode > 0 && told:
		text = what
	case several: // the last line says most
		end = strings.TrimSpace(end)
		text = what + ": " + end[strings.LastIndexByte(end, '\n')+1:]
	}
	if failed.Attempts > 1 {
		text += fmt.Sprintf(" (%d %s)", failed.Attempts, attempts)
	}
	return text
}

// lastReason is what comes before the last reason in package worker's text of a task
// that was delivered too often.
const lastReason = "; the last time: "

// tagLines puts the tag before every line.
func tagLines(tag, text []byte) []byte {
	if len(text) == 0 {
		return nil
	}
	out := make([]byte, 0, len(text)+8*len(tag))
	for line := range bytes.Lines(text) {
		out = append(append(out, tag...), line...)
	}
	if out[len(out)-1] != '\n' {
		out = append(out, '\n') // or the next tag would not begin a line
	}
	return out
}

// endLine makes sure that what comes next begins a line.
func endLine(text string) []byte {
	if text == "" || strings.HasSuffix(text, "\n") {
		return []byte(text)
	}
	return []byte(text + "\n")
}

// printable shows an input in one line of a message.
func printable(input []byte) string {
	const most = 60
	text := strings.ReplaceAll(string(input[:min(len(input), 4*most)]), "\x00", " ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}
