package rabbitmq

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace"
)

// The names of what the driver makes on the server. Neither topics nor channels can have
// a slash in their names, so that no two of these are the same.
const (
	unclaimedSuffix = "//unclaimed" // exchange: what the topic's exchange cannot route
	firstSuffix     = "//first"     // exchange that only notes which channel was the first
	channelsSuffix  = "//channels"  // queue with a message for each durable channel but the first
	heldInfix       = "//held/"     // queue of a subscription's long tasks

	arriveExchange = "millrace//arrive" // where delayed messages come out
	goneExchange   = "millrace//gone"   // where those go whose queue has gone meanwhile
	inboxExchange  = "millrace//inbox"  // where subscriptions are told, and asked, something
)

// reserved begins the names that RabbitMQ keeps to itself.
const reserved = "amq."

// ownQueue is the queue of a channel that is not a topic's first.
func ownQueue(topic, channel string) string { return topic + "/" + channel }

// The routing keys of arriveExchange.
func queueKey(queue string) string { return "queue " + queue }
func topicKey(topic string) string { return "topic " + topic }

// checkTopic is millrace.CheckName, and refuses what belongs to RabbitMQ.
func checkTopic(topic string) error {
	if err := millrace.CheckName(topic); err != nil {
		return err
	}
	if strings.HasPrefix(topic, reserved) {
		return fmt.Errorf("%w %q: RabbitMQ keeps names that begin with %q to itself", millrace.ErrBadName, topic, reserved)
	}
	return nil
}

// checkChannel checks both names; the channel may be "".
func checkChannel(topic, channel string) error {
	if err := checkTopic(topic); err != nil || channel == "" {
		return err
	}
	return millrace.CheckName(channel)
}
