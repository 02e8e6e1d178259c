package rabbitmq

import (
	"bytes"
	"math/bits"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

// delivered makes of what is published what a consumer gets.
func delivered(p *amqp.Publishing) *amqp.Delivery {
	return &amqp.Delivery{CorrelationId: p.CorrelationId, ReplyTo: p.ReplyTo, ContentType: p.ContentType, Headers: p.Headers}
}

func TestEveryListOfHeadersArrivesAsItIs(t *testing.T) {
	keys := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "id", "reply-to", "content-type", "a", "b", "retries", "x-death", "CC", "BCC",
			"millrace-headers", "millrace-attempts", strings.Repeat("k", 256),
		}),
		rapid.String(),
	)
	values := rapid.OneOf(rapid.SampledFrom([]string{"", "1", "\xff\x00", strings.Repeat("v", 256)}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		var h millrace.Headers
		for range rapid.IntRange(0, 6).Draw(t, "pairs") {
			h = h.Append(keys.Draw(t, "key"), values.Draw(t, "value"))
		}
		var p amqp.Publishing
		write(&p, h)
		if err := p.Headers.Validate(); err != nil {
			t.Fatal(err)
		}
		for key := range p.Headers {
			if key == "CC" || key == "BCC" || strings.HasPrefix(key, "x-") {
				t.Fatalf("RabbitMQ would take the header %q for its own", key)
			}
		}
		if got := read(delivered(&p)); !bytes.Equal(got, h) {
			t.Fatalf("got %q, want %q", got, h)
		}
	})
}

func TestWhatMillraceWritesNeedsNoListBeside(t *testing.T) {
	for _, h := range []millrace.Headers{
		nil,
		millrace.Headers(nil).Append(millrace.HeaderID, "job-1").Append(millrace.HeaderReplyTo, "reply.x"),
		millrace.Headers(nil).Append(millrace.HeaderID, "job-1").Append(millrace.HeaderReplyTo, "reply.x").
			Append(millrace.HeaderRetries, "3").Append(millrace.HeaderTimeout, "1s"),
		millrace.Headers(nil).Append(millrace.HeaderID, "job-1").Append(millrace.HeaderAttempts, "2"),
	} {
		var p amqp.Publishing
		write(&p, h)
		if _, has := p.Headers[headerList]; has {
			t.Errorf("%q has its list beside the properties", h)
		}
	}
}

func TestAListThatWasCopiedWithOtherHeadersDoesNotCount(t *testing.T) {
	var p amqp.Publishing
	write(&p, millrace.Headers(nil).Append("b", "1").Append("a", "1")) // not in order
	p.Headers["a"] = "2"                                               // by a program that copies what it does not know
	if got := read(delivered(&p)).Text("a"); got != "2" {
		t.Errorf("a is %q, want what the other program wrote", got)
	}
}

func TestADelayIsRoundedUpALittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, int64(longest)).Draw(t, "delay"))
		way := rungs(d)
		took := time.Duration(way) * time.Millisecond
		if took < d || took > d+d/8+33*time.Millisecond {
			t.Fatalf("%v takes %v", d, took)
		}
		if n := bits.OnesCount64(way); n > precision {
			t.Fatalf("%v takes %d rungs", d, n)
		}
		if way>>(highestRung+1) != 0 || way&(1<<lowestRung-1) != 0 {
			t.Fatalf("%v takes the rungs %b, some of which do not exist", d, way)
		}
	})
	if got := rungs(365 * 24 * time.Hour); got != rungs(longest) {
		t.Errorf("a year takes %d ms at once", got)
	}
}

func TestADelayThatIsTooLongForTheRungsHasItsDueTime(t *testing.T) {
	now := time.UnixMilli(1e12)
	var short, long letter
	delay(&short, "key", longest, now)
	delay(&long, "key", longest+time.Hour, now)
	if _, has := short.message.Headers[headerDue]; has {
		t.Error("the longest delay has a due time")
	}
	if got := number(long.message.Headers[headerDue]); got != now.Add(longest+time.Hour).UnixMilli() {
		t.Errorf("due %d", got)
	}
}

func TestAttemptsAreCountedOverCopies(t *testing.T) {
	for _, c := range []struct {
		d    amqp.Delivery
		want uint32
	}{
		{amqp.Delivery{}, 1},
		{amqp.Delivery{Redelivered: true}, 2},
		{amqp.Delivery{Redelivered: true, Headers: amqp.Table{"x-delivery-count": int64(3)}}, 4},
		{amqp.Delivery{Headers: amqp.Table{headerAttempts: int64(5)}}, 6},
		{amqp.Delivery{Redelivered: true, Headers: amqp.Table{headerAttempts: int64(5), "x-delivery-count": int64(1)}}, 7},
		{amqp.Delivery{Headers: amqp.Table{headerAttempts: int64(-5)}}, 1},
	} {
		if got := attempt(&c.d); got != c.want {
			t.Errorf("%v: attempt %d, want %d", c.d.Headers, got, c.want)
		}
	}
}

func TestAReplyToThatIsNoTopicHasAnAlias(t *testing.T) {
	var r replies
	for _, queue := range []string{"reply.x", "amq.rabbitmq.reply-to.g1h+/=", strings.Repeat("long", 50), "an odd name"} {
		h := millrace.Headers(nil).Append("id", "1").Append("reply-to", queue).Append("z", "1")
		local := r.note(h)
		alias := local.Text("reply-to")
		if err := millrace.CheckName(alias); err != nil {
			t.Errorf("%s: %v", queue, err)
		}
		if got, ok := r.queue(alias); !ok || got != queue {
			t.Errorf("%s: answers go to %q", queue, got)
		}
		if got := r.original(local); !bytes.Equal(got, h) {
			t.Errorf("%s: a copy has the headers %q", queue, got)
		}
	}
	if _, ok := r.queue("reply.y"); ok {
		t.Error("a topic that nobody wanted answers in is taken for one")
	}
}

// A copy of a task may be delivered to another process, or a program in another language.
func TestCopiesHaveTheQueueInPlaceOfItsAlias(t *testing.T) {
	b := &Broker{}
	b.maxSize.Store(maxSize)
	b.maxHeaders.Store(1 << 10)
	const queue = "amq.rabbitmq.reply-to.g1h+/="
	m := millrace.Message{Headers: b.replies.note(millrace.Headers(nil).Append("reply-to", queue))}
	letters, _, err := b.letters(letter{}, "", []millrace.Message{m})
	if err != nil || letters[0].message.ReplyTo != queue {
		t.Errorf("what is published has the reply-to %q (%v)", letters[0].message.ReplyTo, err)
	}
	if l := b.copyOf(&holding{d: millrace.Delivery{Message: m}}); l.message.ReplyTo != queue {
		t.Errorf("what is delayed has the reply-to %q", l.message.ReplyTo)
	}
}

func TestNamesAreForgottenWhenThereAreTooMany(t *testing.T) {
	var n names
	n.add("used")
	for i := range 5 * recentNames {
		n.put(string(rune('a'+i%26))+time.Duration(i).String(), "")
		if i%100 == 0 {
			if !n.isYoung([]byte("used")) {
				n.add("used")
			}
		}
	}
	if got := len(n.young) + len(n.aged); got > 2*recentNames {
		t.Errorf("%d are remembered", got)
	}
	if !n.has("used") {
		t.Error("one that is in use is forgotten")
	}
}
