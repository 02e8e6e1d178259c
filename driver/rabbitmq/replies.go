package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/millrace/millrace"
)

// recentNames is how many of the names that were seen last are remembered at least.
const recentNames = 16 << 10

// names remembers names that were seen lately, and something about each, in bounded memory.
type names struct {
	mu          sync.RWMutex // guards both
	young, aged map[string]string
}

func (n *names) get(name string) (string, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if about, ok := n.young[name]; ok {
		return about, true
	}
	about, ok := n.aged[name]
	return about, ok
}

func (n *names) put(name, about string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.young == nil || len(n.young) >= recentNames {
		n.young, n.aged = make(map[string]string), n.young
	}
	n.young[name] = about
}

func (n *names) has(name string) bool { _, ok := n.get(name); return ok }

// isYoung says whether the name was put so lately that it will not be forgotten next.
func (n *names) isYoung(name []byte) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	_, ok := n.young[string(name)]
	return ok
}

func (n *names) add(name string) { n.put(name, "") }

func (n *names) remove(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.young, name)
	delete(n.aged, name)
}

// replies are the queues that deliveries want their answers in, as topics. Other programs name queues as
// they like, and direct reply-to makes names that are too long for a topic: such a queue has an alias here,
// and nowhere else.
type replies struct{ queues names }

const aliasPrefix = "reply-to."

// note remembers the queue that a delivery wants its answer in, and returns the headers with a name
// that a topic can have.
func (r *replies) note(h millrace.Headers) millrace.Headers {
	value, ok := h.Get(millrace.HeaderReplyTo)
	if !ok || len(value) == 0 {
		return h
	}
	if r.queues.isYoung(value) {
		return h
	}
	queue := string(value)
	if millrace.CheckName(queue) == nil {
		r.queues.put(queue, queue)
		return h
	}
	sum := sha256.Sum256(value)
	alias := aliasPrefix + hex.EncodeToString(sum[:16])
	r.queues.put(alias, queue)
	return replaceReplyTo(h, alias)
}

// queue returns the queue for answers to a topic, if it is one that some delivery wanted.
func (r *replies) queue(topic string) (string, bool) { return r.queues.get(topic) }

// original returns headers with the name of a queue in place of its alias.
func (r *replies) original(h millrace.Headers) millrace.Headers {
	value, ok := h.Get(millrace.HeaderReplyTo)
	if !ok || len(value) < len(aliasPrefix) || string(value[:len(aliasPrefix)]) != aliasPrefix {
		return h
	}
	if queue, ok := r.queues.get(string(value)); ok {
		return replaceReplyTo(h, queue)
	}
	return h
}

// replaceReplyTo returns the headers with another reply-to in the same place.
func replaceReplyTo(h millrace.Headers, replyTo string) millrace.Headers {
	out := make(millrace.Headers, 0, len(h)+len(replyTo))
	replaced := false
	for key, value := range h.All() {
		if key == millrace.HeaderReplyTo && !replaced {
			value, replaced = replyTo, true
		}
		out = out.Append(key, value)
	}
	return out
}
