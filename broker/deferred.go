package broker

import (
	"github.com/millrace/millrace/internal/seglog"
)

// A channel knows of what is published with a delay as soon as it gets it, so that it
// counts as deferred before a consumer has come to it. What has just been published the
// log has in memory; what has waited in the topic, or stands behind a journal that has
// lost its end, is looked for in the log: in those stretches of it that have some.

// learn tells the ledger of what is deferred among the messages that were released, if
// that needs no reading; else it tells the housekeeper. The lock is held.
func (ch *Channel) learn() {
	l := ch.ledger
	from := l.Surveyed()
	if from >= ch.limit {
		return
	}
	found, ok := ch.topic.log.Deferred(from, ch.limit)
	if !ok {
		ch.topic.broker.house.tell(ch.topic)
		return
	}
	l.Survey(ch.limit)
	ch.park(found)
}

// park makes messages wait that the ledger did not know of. The lock is held.
func (ch *Channel) park(found []seglog.Deferral) {
	for _, d := range found {
		ch.ledger.DeferAhead(d.Seq, d.Due)
	}
	if len(found) > 0 {
		at := ch.now()
		ch.ledger.NextRedelivery(at) // moves what is due
		ch.touch()
		ch.arm(at)
	}
}

const (
	// surveyAtOnce is how many messages are read, at a start or when a topic gets its first
	// channel or is unpaused, before that is said to be done: a fraction of a second's work.
	// What is deferred among those behind them counts as ready until the housekeeper, or a
	// consumer, comes to it.
	surveyAtOnce = 1 << 20
	// surveyInPassing is how many the housekeeper reads at a time.
	surveyInPassing = 64 << 10
	surveyChunk     = 256
)

// survey makes all channels know what is deferred among what they have got. What goes
// wrong there the housekeeper meets again, and says. The turn is held.
func (t *Topic) survey() {
	for _, ch := range t.Channels() {
		if all, err := ch.survey(surveyAtOnce); !all || err != nil {
			t.broker.house.tell(t)
		}
	}
}

// keepSurvey goes on with that. The turn is held.
func (ch *Channel) keepSurvey() error {
	all, err := ch.survey(surveyInPassing)
	if !all && err == nil {
		ch.topic.broker.house.tell(ch.topic)
	}
	return err
}

// survey makes the ledger know what is deferred of what the channel has got, reading at
// most so many messages, and says whether that was all. The turn is held.
func (ch *Channel) survey(most int) (all bool, err error) {
	ch.mu.Lock()
	from, limit := ch.ledger.Surveyed(), ch.limit
	ch.mu.Unlock()
	if from >= limit {
		return true, nil
	}
	log := ch.topic.log
	reader := log.NewReader(from)
	defer reader.Close()
	records := make([]seglog.Record, surveyChunk)
	for most > 0 {
		lo, hi := log.NextDeferred(from, limit)
		if lo == hi {
			ch.found(nil, limit)
			ch.extend(limit) // learns what has come meanwhile
			return true, nil
		}
		reader.Seek(lo)
		n, err := reader.Read(records)
		if err != nil {
			return false, ch.errorf(err)
		}
		most -= max(n, 1)
		from = ch.found(records[:n], hi)
		_ = ch.spill() // else the housekeeper says why not
	}
	return false, nil
}

// found tells the ledger what is deferred of the records that stand one after the other
// in a stretch that ends at hi, and returns up to where it knows all now.
func (ch *Channel) found(records []seglog.Record, hi uint64) uint64 {
	var some []seglog.Deferral
	at := ch.now()
	to := hi // if there are none, or one beyond
	if n := len(records); n > 0 {
		to = min(records[n-1].Seq+1, hi)
	}
	for i := range records {
		// What is due already is delivered when its turn comes: after a replay that may be
		// millions, for which there is no room in memory.
		if r := &records[i]; r.Due > at && r.Seq < hi {
			some = append(some, seglog.Deferral{Seq: r.Seq, Due: r.Due})
		}
	}
	ch.mu.Lock()
	ch.ledger.Survey(to)
	ch.park(some)
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
	return to
}
