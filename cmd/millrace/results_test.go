package main

import (
	"testing"
	"time"

	"github.com/millrace/millrace/gather"
)

func TestEveryLineIsTagged(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "x\ta\n", "a\n": "x\ta\n", "a\n\nb": "x\ta\nx\t\nx\tb\n",
	} {
		if got := string(tagLines([]byte("x\t"), []byte(text))); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestAFailureIsToldInOneLine(t *testing.T) {
	m := &mapping{mapOptions: mapOptions{timeout: 3 * time.Second}}
	for _, c := range []struct {
		failed gather.TaskError
		want   string
	}{
		{gather.TaskError{Message: "exit status 3"}, "exit status 3"},
		{gather.TaskError{Message: "exit status 3: no: such file"}, "exit status 3: no: such file"},
		{gather.TaskError{Message: "exit status 3: warning\nmore\nno such file"}, "exit status 3: no such file"},
		{gather.TaskError{Message: "exit status 1", Attempts: 3}, "exit status 1 (3 attempts)"},
		{gather.TaskError{Kind: gather.KindTimeout, Message: "x"}, "it took longer than 3s and was killed"},
		{gather.TaskError{Kind: gather.KindKilled, Message: "x"}, "x"},
		{gather.TaskError{Kind: gather.KindKilled, Message: "it died" + lastReason + "killed by signal 9 (SIGKILL)", Attempts: 6}, "killed by signal 9 (SIGKILL) (6 attempts, of which this was the last)"},
	} {
		if got := m.reason(&c.failed, false); got != c.want {
			t.Errorf("%+v: %q, want %q", c.failed, got, c.want)
		}
	}
}

func TestWhatWasShownIsNotToldAgain(t *testing.T) {
	m := new(mapping)
	if got := m.reason(&gather.TaskError{Message: "exit status 3: warning\nno such file", ExitCode: 3}, true); got != "exit status 3" {
		t.Errorf("%q", got)
	}
}
