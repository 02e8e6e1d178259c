package millrace

import (
	"errors"
	"fmt"
	"strings"
)

// ErrBadName is returned when a topic or channel has a name that brokers cannot hold.
var ErrBadName = errors.New("millrace: bad name")

const (
	// MaxNameLen is the most characters the name of a topic or a channel may have,
	// as in NSQ.
	MaxNameLen = 64
	// WorkChannel is the channel of a queue that its workers share.
	WorkChannel = "work"
	// EphemeralSuffix ends the name of a channel that goes with its last consumer,
	// and of a topic that goes with its last channel. Neither outlives a restart.
	EphemeralSuffix = "#ephemeral"
	// DeadSuffix ends the name of the topic that holds the dead letters of a queue or topic.
	DeadSuffix = ".dead"
	// DeadChannel is the channel of that topic in which they wait.
	DeadChannel = "dead"
	// ControlSuffix ends the name of the topic on which the workers of a queue are
	// told what does not concern one task alone, such as a cancelled job.
	ControlSuffix = ".control"
)

// CheckName returns nil for a name that every broker can hold as a topic or a
// channel: 1 to 64 of the characters a–z A–Z 0–9 . _ -, then possibly #ephemeral.
// Otherwise it returns an error that wraps ErrBadName and says what is wrong.
//
// The rule is NSQ's: ^[.a-zA-Z0-9_-]+(#ephemeral)?$, 1–64 characters in all.
func CheckName(name string) error {
	base := strings.TrimSuffix(name, EphemeralSuffix)
	switch {
	case base == "":
		return fmt.Errorf("%w %q: it is empty", ErrBadName, name)
	case len(name) > MaxNameLen:
		return fmt.Errorf("%w %q: it has %d characters, at most %d are allowed", ErrBadName, name, len(name), MaxNameLen)
	}
	for i := range len(base) {
		if !nameByte(base[i]) {
			return fmt.Errorf("%w %q: only letters, digits, '.', '_' and '-' are allowed", ErrBadName, name)
		}
	}
	return nil
}

// CheckQueue is CheckName for a queue, whose name must leave room for the suffixes
// of the topics that belong to it.
func CheckQueue(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if longest := MaxNameLen - len(ControlSuffix); len(name) > longest {
		return fmt.Errorf("%w %q: the name of a queue has at most %d characters", ErrBadName, name, longest)
	}
	if Ephemeral(name) {
		return fmt.Errorf("%w %q: a queue cannot be ephemeral", ErrBadName, name)
	}
	return nil
}

// Ephemeral says whether name is that of an ephemeral topic or channel.
func Ephemeral(name string) bool { return strings.HasSuffix(name, EphemeralSuffix) }

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '-'
}
