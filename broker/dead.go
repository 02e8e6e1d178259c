package broker

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// A message that was delivered Options.MaxAttempts times and is to be delivered once more
// is taken out of its channel instead and put, as a dead letter, into another topic. The
// consumer that was about to get it hands its lease over, in Consumer.land; a goroutine
// of the channel's publishes the letter, with no lock held, and acks the message when the
// letter is as safe as any message. A crash in between makes a second letter.
//
// A letter that cannot be published costs nothing: the delivery is withdrawn, so that it
// counts for nothing, and tried again after a while; meanwhile the other messages flow.

// KindUnfinished is under millrace.HeaderErrorKind in the dead letters that a broker
// makes: the message was delivered Options.MaxAttempts times and never acked.
const KindUnfinished = "unfinished"

const (
	// nobody is the owner of the leases of messages whose letters are being written.
	nobody = 0
	// burialLease is how long that may take before somebody else tries.
	burialLease = time.Hour
	// unburied is how long a message is kept back whose letter could not be written.
	unburied = 10 * time.Second
	// burialBatch is how many bytes of letters are published together, or one letter.
	burialBatch = 1 << 20
	// maxBurials is in how many goroutines a broker writes letters at a time. A consumer
	// that comes upon more waits for one of them.
	maxBurials = 8
	// letterRoom is by how much a letter may be larger than the largest message.
	letterRoom = 1 << 10
)

// DeadTopic returns the name of the topic that holds the dead letters of a topic. Those
// of an ephemeral topic go to an ephemeral one: they are as safe as the messages were.
// The name may be too long, see millrace.CheckName; then the messages are kept where they
// are.
func DeadTopic(topic string) string {
	if base, ok := strings.CutSuffix(topic, millrace.EphemeralSuffix); ok {
		return base + millrace.DeadSuffix + millrace.EphemeralSuffix
	}
	return topic + millrace.DeadSuffix
}

// attemptsOf is how often a message of the topic is delivered. Dead letters are not
// buried again.
func (b *Broker) attemptsOf(topic string) uint32 {
	most := b.opts.MaxAttempts
	if most <= 0 || most >= math.MaxUint32 || strings.HasSuffix(strings.TrimSuffix(topic, millrace.EphemeralSuffix), millrace.DeadSuffix) {
		return math.MaxUint32
	}
	return uint32(most)
}

// usedUp says whether the delivery is one too many. Of a task somebody waits for the
// answer, which only a worker can give; so it is left to workers, who have a limit too.
func (ch *Channel) usedUp(d *millrace.Delivery) bool {
	if d.Attempt <= ch.attempts {
		return false
	}
	replyTo, _ := d.Headers.Get(millrace.HeaderReplyTo)
	return len(replyTo) == 0
}

// handOver makes the consumer lose what has used up its attempts, and returns what of it
// bury must then be called with, when the lock, which is held, was given back.
func (c *Consumer) handOver(dead []millrace.Delivery, at int64) []millrace.Delivery {
	ch := c.channel
	passed := dead[:0]
	for _, d := range dead {
		if ch.ledger.Pass(d.Seq, d.Attempt, after(at, burialLease), nobody) {
			c.held--
			passed = append(passed, d)
		}
	}
	if len(passed) > 0 {
		ch.topic.broker.burials.Add(1)
	}
	return passed
}

// bury writes letters for the messages that handOver has returned, in the background.
func (ch *Channel) bury(dead []millrace.Delivery) {
	if len(dead) == 0 {
		return
	}
	b := ch.topic.broker
	b.burying <- struct{}{}
	go func() {
		defer b.burials.Done()
		defer func() { <-b.burying }()
		for len(dead) > 0 {
			letters := ch.letters(dead)
			batch := dead[:len(letters)]
			dead = dead[len(letters):]
			ch.buried(batch, b.publishLetters(DeadTopic(ch.topic.name), letters))
		}
	}()
}

// letters returns the letters for the first of the messages: as many as are published
// together.
func (ch *Channel) letters(dead []millrace.Delivery) []millrace.Message {
	var letters []millrace.Message
	bytes := 0
	for i := range dead {
		m := ch.letter(&dead[i])
		if bytes += m.Size(); bytes > burialBatch && i > 0 {
			break
		}
		letters = append(letters, m)
	}
	return letters
}

// letter is the dead letter for a message: unchanged, with what there is to say of it in
// front. Of two headers with one name the first counts.
func (ch *Channel) letter(d *millrace.Delivery) millrace.Message {
	attempts := d.Attempt - 1
	times := fmt.Sprintf("%d times", attempts)
	if attempts == 1 {
		times = "once"
	}
	h := make(millrace.Headers, 0, len(d.Headers)+letterRoom).
		Append(millrace.HeaderError, "delivered "+times+" without being finished").
		Append(millrace.HeaderErrorKind, KindUnfinished).
		Append(millrace.HeaderAttempts, strconv.FormatUint(uint64(attempts), 10)).
		Append(millrace.HeaderQueue, ch.topic.name).
		Append(millrace.HeaderChannel, ch.name).
		Append(millrace.HeaderSequence, strconv.FormatUint(d.Seq, 10)).
		Append(millrace.HeaderPublished, time.Unix(0, d.Published).UTC().Format(time.RFC3339Nano))
	return millrace.Message{Headers: append(h, d.Headers...), Body: d.Body}
}

// publishLetters publishes to the topic, whose channel must be there before that: a
// message that comes before its channel reaches it only if that is the first.
func (b *Broker) publishLetters(topic string, letters []millrace.Message) error {
	for {
		ch, err := b.Channel(topic, millrace.DeadChannel)
		if err != nil {
			return err
		}
		limit := min(b.opts.MaxMessage+letterRoom, seglog.MaxEntry)
		if err = ch.topic.publish(letters, limit); !errors.Is(err, errTopicGone) {
			return err
		}
	}
}

// buried settles the messages whose letters were, or could not be, published, and tells
// the Logger when that has changed.
func (ch *Channel) buried(dead []millrace.Delivery, err error) {
	at := ch.now()
	ch.mu.Lock()
	if ch.ended != nil || errors.Is(err, millrace.ErrClosed) {
		ch.mu.Unlock() // what is still held comes again when the broker is opened again
		return
	}
	for _, d := range dead {
		if err != nil {
			ch.ledger.Withdraw(d.Seq, d.Attempt, at, after(at, unburied))
		} else if ch.ledger.Ack(d.Seq, d.Attempt) {
			ch.dead++
		}
	}
	failed := ch.unburied
	ch.unburied = err != nil
	ch.touch()
	ch.arm(at)
	ch.mu.Unlock()
	log := ch.topic.broker.opts.Logger.With("topic", ch.topic.name, "channel", ch.name)
	switch {
	case err != nil && !failed:
		log.Error("dead letters cannot be written; the messages are kept, and it is tried again", "error", err)
	case err == nil && failed:
		log.Info("dead letters can be written again")
	}
}
