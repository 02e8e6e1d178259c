package nats

import (
	"crypto/rand"
	"strings"
)

const (
	streamPrefix  = "MILLRACE_"
	subjectPrefix = "millrace."
	// holderPrefix starts the names of the consumers that keep what waits in a topic
	// without channels. No channel's name can have it.
	holderPrefix = "~"
)

// Stream returns the name of the stream that is the topic.
func Stream(topic string) string { return streamPrefix + token(topic) }

// Subject returns the subject to which the topic's messages are published.
func Subject(topic string) string { return subjectPrefix + token(topic) }

// Consumer returns the name, in the topic's stream, of the consumer that is the channel.
func Consumer(channel string) string { return token(channel) }

// token writes a name without dots, which separate the parts of a subject. '=' is in no
// name of ours, so two names never become one.
func token(name string) string { return strings.ReplaceAll(name, ".", "=") }

// newHolder makes up the name of a holder.
func newHolder() string { return holderPrefix + rand.Text()[:16] }

func isHolder(consumer string) bool { return strings.HasPrefix(consumer, holderPrefix) }
