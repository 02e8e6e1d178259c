package rabbitmq

import (
	"context"
	"math/bits"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The delays. There is a rung for each power of two of milliseconds, from 2^5 to 2^31: a headers
// exchange, and a queue in which a message stays for so long. A message says in its
// headers on which rungs it has to stay, and keeps its routing key on the way: where to go in the end.
//
//	millrace//delay/12 ──"12"──► queue millrace//delay/12, for 4096 ms ──┐
//	        │ alternate                                                 │ dead-letters to
//	millrace//delay/11 ◄──────────────────────────────────────────────────┘
//	        │ alternate, and so on
//	millrace//arrive (direct) ──"topic NAME"──► exchange of the topic
//	        │ alternate         "queue NAME"──► the queue
//	millrace//gone: whatever was to come has been deleted meanwhile
//
// The queues are replicated and hand on at least once: they keep a message until the next queue
// has confirmed it. That is why there is an exchange for what has gone: it would be kept for ever.
const (
	lowestRung, highestRung = 5, 31
	rungPrefix              = "millrace//delay/"
	headerRung              = ours + "delay-"

	// precision is how many rungs one delay takes at the most.
	precision = 4
	// longest is the longest delay that the rungs can do at once.
	longest = (1<<(highestRung+1) - 1<<(highestRung+1-precision)) * time.Millisecond
)

func rungName(rung int) string { return rungPrefix + strconv.Itoa(rung) }

// rungs rounds a delay up to one that takes few rungs, and returns it in milliseconds: bit n is rung n.
func rungs(d time.Duration) uint64 {
	ms := uint64(max(1, (min(d, longest)+time.Millisecond-1)/time.Millisecond)) //nolint:gosec // it is positive
	unit := uint64(1) << max(lowestRung, bits.Len64(ms)-precision)
	return (ms + unit - 1) / unit * unit
}

// delay sends a letter through the rungs; then it goes where key says.
func delay(l *letter, key string, d time.Duration, now time.Time) {
	way := rungs(d)
	l.exchange, l.key = rungName(bits.Len64(way)-1), key
	for rung := lowestRung; rung <= highestRung; rung++ {
		if way>>rung&1 == 1 {
			set(&l.message, headerRung+strconv.Itoa(rung), true)
		}
	}
	if d > longest {
		set(&l.message, headerDue, now.Add(d).UnixMilli())
	}
}

// makeDelays makes the rungs that the letters need, once for each connection to the server.
func (b *Broker) makeDelays(ctx context.Context, letters []letter) error {
	var missing uint64
	for i := range letters {
		for rung := lowestRung; rung <= highestRung; rung++ {
			if _, needs := letters[i].message.Headers[headerRung+strconv.Itoa(rung)]; needs && !b.known.has(rungName(rung)) {
				missing |= 1 << rung
			}
		}
	}
	if missing == 0 {
		return nil
	}
	err := b.control(ctx, func(ch *amqp.Channel) error {
		for rung := lowestRung; rung <= highestRung; rung++ {
			if err := ch.ExchangeDeclare(rungName(rung), amqp.ExchangeHeaders, true, false, false, true,
				amqp.Table{"alternate-exchange": below(rung)}); err != nil {
				return err
			}
		}
		for rung := lowestRung; rung <= highestRung; rung++ {
			if missing>>rung&1 == 1 {
				if err := b.makeRung(ch, rung); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for rung := lowestRung; err == nil && rung <= highestRung; rung++ {
		if missing>>rung&1 == 1 {
			b.known.add(rungName(rung))
		}
	}
	return err
}

// below is where messages go that have been on a rung.
func below(rung int) string {
	if rung == lowestRung {
		return arriveExchange
	}
	return rungName(rung - 1)
}

func (b *Broker) makeRung(ch *amqp.Channel, rung int) error {
	name := rungName(rung)
	if _, err := ch.QueueDeclare(name, true, false, false, true, b.atLeastOnce(amqp.Table{
		"x-message-ttl":          int64(1) << rung,
		"x-dead-letter-exchange": below(rung),
	})); err != nil {
		return err
	}
	return ch.QueueBind(name, "", name, false, amqp.Table{"x-match": "all", headerRung + strconv.Itoa(rung): true})
}

// atLeastOnce returns the arguments of a queue which keeps messages until they are where it
// dead-letters them to.
func (b *Broker) atLeastOnce(args amqp.Table) amqp.Table {
	args["x-dead-letter-strategy"] = "at-least-once"
	args["x-overflow"] = "reject-publish"
	return b.quorum(args)
}

// makeCommon makes what all topics of the vhost share. A queue that is there already is used
// whatever its arguments are.
func (b *Broker) makeCommon(c *conn) error {
	err := onChannel(c, func(ch *amqp.Channel) error { return b.makeGone(ch) })
	if err != nil && !hasCode(err, amqp.PreconditionFailed) {
		return err
	}
	return onChannel(c, func(ch *amqp.Channel) error {
		if err := ch.QueueBind(goneExchange, "", goneExchange, true, nil); err != nil {
			return err
		}
		if err := ch.ExchangeDeclare(inboxExchange, amqp.ExchangeDirect, true, false, false, true, nil); err != nil {
			return err
		}
		return ch.ExchangeDeclare(arriveExchange, amqp.ExchangeDirect, true, false, false, false,
			amqp.Table{"alternate-exchange": goneExchange})
	})
}

// makeGone makes a queue that forgets everything at once. It is replicated because what is
// delayed would wait, with a classic one, for the node that has it.
func (b *Broker) makeGone(ch *amqp.Channel) error {
	if err := ch.ExchangeDeclare(goneExchange, amqp.ExchangeFanout, true, false, true, true, nil); err != nil {
		return err
	}
	_, err := ch.QueueDeclare(goneExchange, true, false, false, false, b.quorum(amqp.Table{"x-message-ttl": int64(0)}))
	return err
}
