package door

import (
	"errors"
	"strconv"
	"time"
)

// A from says from which message on: a sequence number, or a time.
type from struct {
	seq uint64
	at  time.Time // zero: seq counts
}

// errBadFrom says what can be written.
var errBadFrom = errors.New("write a sequence number, a message's id of 16 hexadecimal digits, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 90m")

// parseFrom reads what whoever asks has written, at the time now. "" is the beginning.
func parseFrom(text string, now time.Time) (from, error) {
	if text == "" {
		return from{}, nil
	}
	if len(text) == 16 {
		if seq, err := strconv.ParseUint(text, 16, 64); err == nil {
			return from{seq: seq}, nil
		}
	}
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil {
		return from{seq: seq}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return from{at: at}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return from{at: now.Add(-ago)}, nil
	}
	return from{}, errBadFrom
}
