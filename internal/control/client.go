package control

import (
	"strings"

	"github.com/millrace/millrace"
)

// replyPrefix begins the names of clients' reply topics.
const replyPrefix = "reply."

// ReplyTopic is the topic to which the client with that id has its results sent.
func ReplyTopic(id string) string { return replyPrefix + id }

// ReplyChannel is the one channel of a client's reply topic.
const ReplyChannel = "replies"

// ClientChannel is the channel of the control topic that the client with that id has. It goes
// with the client, also when that dies: so it tells whether the client is there.
func ClientChannel(id string) string { return "client." + id + millrace.EphemeralSuffix }

// idLen is the length of a client's id, of the alphabet of crypto/rand.Text in small letters.
const idLen = 16

// ClientOf returns the id of the client whose reply topic this is; false for one that is no
// client's of ours, of which nothing is known.
func ClientOf(replyTopic string) (id string, ok bool) {
	id, ok = strings.CutPrefix(replyTopic, replyPrefix)
	return id, ok && len(id) == idLen && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
