package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// book is what is known of every message: what was told to its publishers and consumers
// before the broker died, and what came.
type book struct {
	mu        sync.Mutex // guards what follows
	life      int        // how often the broker was started
	ends      []time.Time
	published map[string]*fate
	acked     int
	came      int
	wrong     []string
}

// fate is a message's.
type fate struct {
	acknowledged bool
	far          bool // it was published for a time when the test is long over
	channels     map[string]*state
}

// state is a message's in one channel.
type state struct {
	came   bool
	parked bool // it was deferred for so long that it must not come again
	done   bool // its FIN was taken
	life   int  // in this life of the broker
	at     time.Time
}

// lastInstant is how long before the broker dies a finish may be forgotten: it is written
// within 50 ms, on a machine that has time for it.
const lastInstant = 500 * time.Millisecond

func newBook() *book { return &book{published: make(map[string]*fate)} }

// begin notes messages that are about to be published.
func (b *book) begin(bodies []string, far bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, body := range bodies {
		b.published[key(body)] = &fate{far: far, channels: make(map[string]*state)}
	}
}

// key is a body without its filler.
func key(body string) string {
	name, _, _ := strings.Cut(body, " ")
	return name
}

func (b *book) acknowledge(bodies []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acked += len(bodies)
	for _, body := range bodies {
		b.published[key(body)].acknowledged = true
	}
}

// deliver notes a delivery.
func (b *book) deliver(topic, channel, body string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came++
	f := b.published[key(body)]
	if f == nil || !strings.HasPrefix(body, topic+"/") || !strings.HasSuffix(body, ".") {
		b.complain("%q came to topic %s, where it was never published", body, topic)
		return
	}
	s := f.channels[channel]
	if s == nil {
		s = new(state)
		f.channels[channel] = s
	}
	s.came = true
	switch {
	case f.far || s.parked:
		b.complain("%s came to channel %s long before it was due", key(body), channel)
	case s.done && s.life == b.life:
		b.complain("%s came to channel %s again, in the life in which it was finished", key(body), channel)
	case s.done && b.ends[s.life].Sub(s.at) > lastInstant:
		b.complain("%s came to channel %s again, %v before the broker died it had been finished", key(body), channel, b.ends[s.life].Sub(s.at))
	}
	s.done = false
}

// settle notes that the broker has taken the FINs, or with parked the REQs for long, of
// messages that were delivered in a life.
func (b *book) settle(channel string, life int, keys []string, parked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if life != b.life {
		return
	}
	for _, k := range keys {
		s := b.published[k].channels[channel]
		if parked {
			s.parked = true
			continue
		}
		s.done, s.life, s.at = true, life, time.Now()
	}
}

func (b *book) complain(format string, args ...any) {
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

// now is which life it is.
func (b *book) now() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.life
}

// deliveries is how many there were.
func (b *book) deliveries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.came
}

// died notes the end of a life.
func (b *book) died() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ends = append(b.ends, time.Now())
	b.life++
}

// missing are the messages that were acknowledged and have not come to the channel.
func (b *book) missing(topic, channel string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for k, f := range b.published {
		if s := f.channels[channel]; f.acknowledged && !f.far && strings.HasPrefix(k, topic+"/") && (s == nil || !s.came) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// waiting is how many messages the channel must still hold for later, and how many it may.
func (b *book) waiting(topic, channel string) (least, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, f := range b.published {
		if !strings.HasPrefix(k, topic+"/") {
			continue
		}
		s := f.channels[channel]
		switch {
		case f.far && f.acknowledged, s != nil && s.parked:
			least++
			most++
		case f.far, s == nil || !s.done:
			most++
		}
	}
	return least, most
}
