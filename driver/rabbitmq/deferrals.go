package rabbitmq

import (
	"sync"
	"time"

	"github.com/millrace/millrace"
)

// deferrals count what this process has delayed, and when it comes. Whoever asks for the depth of a
// channel would else take for lost what is delayed.
type deferrals struct {
	mu sync.Mutex // guards the one below
	of map[string]map[int64]int64
}

// deferralKeys is from how many keys on those are looked for of which nothing is delayed any more.
const deferralKeys = 1024

// note counts messages that were delayed and come out with the key.
func (d *deferrals) note(key string, msgs []millrace.Message) {
	now := time.Now()
	for i := range msgs {
		if msgs[i].Delay > 0 {
			d.add(key, now, msgs[i].Delay, 1)
		}
	}
}

// add counts n messages. Their time is rounded up to whole seconds, as is the memory for it.
func (d *deferrals) add(key string, now time.Time, delay time.Duration, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = make(map[string]map[int64]int64)
	}
	if len(d.of) >= deferralKeys {
		for other := range d.of {
			d.sum(other, now)
		}
	}
	due := d.of[key]
	if due == nil {
		due = make(map[int64]int64)
		d.of[key] = due
	}
	due[now.Add(delay).Unix()+1] += n
}

// count returns how many are still to come to a channel's queue.
func (d *deferrals) count(topic, queue string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	return d.sum(topicKey(topic), now) + d.sum(queueKey(queue), now)
}

// sum adds up what is to come with a key, and forgets what has come. The caller holds mu.
func (d *deferrals) sum(key string, now time.Time) (n int64) {
	for due, count := range d.of[key] {
		if due <= now.Unix() {
			delete(d.of[key], due)
			continue
		}
		n += count
	}
	if len(d.of[key]) == 0 {
		delete(d.of, key)
	}
	return n
}
