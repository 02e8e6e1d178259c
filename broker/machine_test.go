package broker_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// A model is what a broker with one topic and up to three channels should do, in the
// plainest way: each channel has each message in one of a few states.
type model struct {
	channels map[string]map[int]*state // by channel, by message
	waiting  []int                     // messages, for the first channel
	due      map[int]time.Time         // when the message may first be delivered
	next     int
}

type state struct {
	ready    time.Time // not before; zero: at once
	holder   *holder   // nil: nobody
	tag      millrace.Delivery
	deadline time.Time
	attempt  uint32
}

// holder is a consumer of the model, and the real one.
type holder struct {
	*broker.Consumer
	channel  string
	prefetch int
	lease    time.Duration
	lost     []millrace.Delivery // whose lease has ended: they can do nothing any more
}

type machine struct {
	t       *rapid.T
	opts    broker.Options
	disk    *vfs.Mem
	b       *broker.Broker
	model   model
	holders []*holder
}

const machineSegment = 300

func newMachine(t *rapid.T, files bool) *machine {
	m := &machine{t: t, model: model{channels: map[string]map[int]*state{}, due: map[int]time.Time{}, next: 1}}
	m.opts = broker.Options{Logger: quiet()}.WithSegments(machineSegment)
	if files {
		m.disk = vfs.NewMem()
		m.opts.Dir = "data"
	}
	m.open()
	return m
}

func (m *machine) open() {
	opts := m.opts
	if m.disk != nil {
		opts = opts.On(m.disk)
	}
	b, err := broker.Open(opts)
	m.must(err)
	m.b = b
}

func (m *machine) must(err error) {
	if err != nil {
		m.t.Fatalf("%+v", err)
	}
}

func (m *machine) Publish(t *rapid.T) {
	n := rapid.IntRange(1, 6).Draw(t, "n")
	delay := rapid.SampledFrom([]time.Duration{0, 0, 0, 0, time.Second, time.Hour}).Draw(t, "delay")
	var msgs []millrace.Message
	for range n {
		seq := m.model.next
		m.model.next++
		msgs = append(msgs, millrace.Message{Body: strconv.AppendInt(nil, int64(seq), 10), Delay: delay})
		due := time.Time{}
		if delay > 0 {
			due = time.Now().Add(delay)
		}
		m.model.due[seq] = due
		for _, ch := range m.model.channels {
			ch[seq] = &state{ready: due}
		}
		if len(m.model.channels) == 0 {
			m.model.waiting = append(m.model.waiting, seq)
		}
	}
	m.must(m.b.Publish("t", msgs))
}

func (m *machine) drawChannel(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "channel")
}

func (m *machine) Subscribe(t *rapid.T) {
	if len(m.holders) == 5 {
		t.Skip()
	}
	channel := m.drawChannel(t)
	h := &holder{
		channel:  channel,
		prefetch: rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "prefetch"),
		lease:    rapid.SampledFrom([]time.Duration{5 * time.Second, time.Minute}).Draw(t, "lease"),
	}
	c, err := m.b.Subscribe("t", channel, millrace.SubscribeOptions{Prefetch: h.prefetch, Lease: h.lease})
	m.must(err)
	h.Consumer = c
	m.holders = append(m.holders, h)
	if m.model.channels[channel] == nil {
		ch := map[int]*state{}
		for _, seq := range m.model.waiting {
			ch[seq] = &state{ready: m.model.due[seq]}
		}
		m.model.waiting = nil
		m.model.channels[channel] = ch
	}
}

func (m *machine) drawHolder(t *rapid.T) *holder {
	if len(m.holders) == 0 {
		t.Skip()
	}
	return rapid.SampledFrom(m.holders).Draw(t, "consumer")
}

func (m *machine) held(h *holder) []int {
	var held []int
	for seq, s := range m.model.channels[h.channel] {
		if s.holder == h {
			held = append(held, seq)
		}
	}
	slices.Sort(held)
	return held
}

// available are the messages of a channel that can be delivered now.
func (m *machine) available(channel string) map[int]*state {
	out := maps.Clone(m.model.channels[channel])
	maps.DeleteFunc(out, func(_ int, s *state) bool { return s.holder != nil || s.ready.After(time.Now()) })
	return out
}

func (m *machine) Receive(t *rapid.T) {
	h := m.drawHolder(t)
	available := m.available(h.channel)
	room := h.prefetch - len(m.held(h))
	buf := make([]millrace.Delivery, rapid.IntRange(1, 10).Draw(t, "room"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	n, err := h.Receive(ctx, buf)
	if want := len(available) > 0 && room > 0; want != (err == nil) {
		t.Fatalf("%d messages are available and there is room for %d, but: %d, %v", len(available), room, n, err)
	}
	if n > max(room, 0) {
		t.Fatalf("%d messages, there was room for %d", n, room)
	}
	for _, d := range buf[:n] {
		seq, _ := strconv.Atoi(string(d.Body))
		s := available[seq]
		if s == nil {
			t.Fatalf("message %d is not there to be delivered: %+v", seq, m.model.channels[h.channel][seq])
		}
		delete(available, seq)
		if s.attempt++; s.attempt != d.Attempt {
			t.Fatalf("message %d has attempt %d, want %d", seq, d.Attempt, s.attempt)
		}
		s.holder, s.tag, s.deadline = h, d, time.Now().Add(h.lease)
	}
}

// drawHeld draws some of what a consumer holds or once held.
func (m *machine) drawHeld(t *rapid.T, h *holder) (seqs []int, ds []millrace.Delivery, lost []int) {
	for _, seq := range m.held(h) {
		if rapid.Bool().Draw(t, "take") {
			seqs = append(seqs, seq)
			ds = append(ds, m.model.channels[h.channel][seq].tag)
		}
	}
	for _, d := range h.lost {
		if rapid.Bool().Draw(t, "take a lost one") {
			lost = append(lost, len(ds))
			ds = append(ds, d)
		}
	}
	return seqs, ds, lost
}

func (m *machine) settled(t *rapid.T, err error, lost []int) {
	if len(lost) == 0 {
		m.must(err)
		return
	}
	var le *millrace.LeaseError
	if !asLeaseError(err, &le) || !slices.Equal(le.Lost, lost) {
		t.Fatalf("%v, want the leases %v lost", err, lost)
	}
}

func (m *machine) Ack(t *rapid.T) {
	h := m.drawHolder(t)
	seqs, ds, lost := m.drawHeld(t, h)
	m.settled(t, h.Ack(context.Background(), ds...), lost)
	for _, seq := range seqs {
		delete(m.model.channels[h.channel], seq)
	}
}

func (m *machine) Nack(t *rapid.T) {
	h := m.drawHolder(t)
	seqs, ds, lost := m.drawHeld(t, h)
	delay := rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "delay")
	m.settled(t, h.Nack(context.Background(), delay, ds...), lost)
	for _, seq := range seqs {
		s := m.model.channels[h.channel][seq]
		s.holder, s.ready = nil, time.Now().Add(delay)
		h.lost = append(h.lost, s.tag)
	}
}

func (m *machine) Extend(t *rapid.T) {
	h := m.drawHolder(t)
	seqs, ds, lost := m.drawHeld(t, h)
	m.settled(t, h.Extend(context.Background(), ds...), lost)
	for _, seq := range seqs {
		m.model.channels[h.channel][seq].deadline = time.Now().Add(h.lease)
	}
}

func (m *machine) SetPrefetch(t *rapid.T) {
	h := m.drawHolder(t)
	h.prefetch = rapid.IntRange(0, 5).Draw(t, "prefetch")
	h.Consumer.SetPrefetch(h.prefetch)
}

func (m *machine) Sleep(t *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 6 * time.Second, time.Hour}).Draw(t, "for"))
	synctest.Wait()
	// Leases are looked at in steps: one that has just ended may be a little late.
	time.Sleep(20 * time.Millisecond)
	for _, h := range m.holders {
		for _, seq := range m.held(h) {
			if s := m.model.channels[h.channel][seq]; !s.deadline.After(time.Now()) {
				h.lost = append(h.lost, s.tag)
				s.holder = nil
			}
		}
	}
}

func (m *machine) CloseConsumer(t *rapid.T) {
	h := m.drawHolder(t)
	m.must(h.Close())
	m.release(h)
	m.holders = slices.DeleteFunc(m.holders, func(other *holder) bool { return other == h })
}

func (m *machine) release(h *holder) {
	for _, s := range m.model.channels[h.channel] {
		if s.holder == h {
			s.holder = nil
		}
	}
}

func (m *machine) DeleteChannel(t *rapid.T) {
	channel := m.drawChannel(t)
	m.must(m.b.DeleteChannel("t", channel))
	delete(m.model.channels, channel)
	m.holders = slices.DeleteFunc(m.holders, func(h *holder) bool { return h.channel == channel })
}

func (m *machine) DeleteTopic(*rapid.T) {
	m.must(m.b.DeleteTopic("t"))
	clear(m.model.channels)
	m.model.waiting, m.holders = nil, nil
}

// Restart stops the broker cleanly, or by a power loss a moment after the last call.
func (m *machine) Restart(t *rapid.T) {
	if m.disk == nil {
		t.Skip()
	}
	crash := rapid.Bool().Draw(t, "crash")
	if crash {
		time.Sleep(200 * time.Millisecond) // the housekeeper has come, so that acks are there
		old := m.b
		m.disk = m.crashKeepingWrites()
		defer old.Close()
	} else {
		m.must(m.b.Close())
	}
	for _, h := range m.holders {
		m.release(h)
	}
	m.holders = nil
	m.open()
}

// crashKeepingWrites is the death of the process: what was written is there.
func (m *machine) crashKeepingWrites() *vfs.Mem {
	copied := vfs.NewMem()
	copyTree(m.t, m.disk, copied, "data")
	return copied
}

// check compares what can be seen at any time.
func (m *machine) Check(t *rapid.T) {
	for name, ch := range m.model.channels {
		got, err := m.b.Depth("t", name)
		m.must(err)
		var want millrace.Depth
		for _, s := range ch {
			switch {
			case s.holder != nil:
				want.InFlight++
			case s.ready.After(time.Now()):
				want.Deferred++
			default:
				want.Ready++
			}
		}
		if got != want {
			t.Fatalf("channel %s: %+v, want %+v", name, got, want)
		}
	}
	if topic := m.b.Lookup("t"); topic != nil {
		if n := len(topic.Channels()); n != len(m.model.channels) {
			t.Fatalf("%d channels, want %d", n, len(m.model.channels))
		}
	}
}

func TestTheBrokerDoesAsTheModelSays(t *testing.T) {
	for _, files := range []bool{false, true} {
		t.Run(fmt.Sprintf("files=%t", files), func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) { inBubble(t, r, files) })
		})
	}
}

// inBubble leads one life in virtual time. rapid stops a life with a panic, which has to
// be taken out of the bubble's goroutine.
func inBubble(t *testing.T, r *rapid.T, files bool) {
	var end any
	synctest.Test(t, func(*testing.T) {
		defer func() { end = recover() }()
		m := newMachine(r, files)
		defer func() { _ = m.b.Close() }()
		r.Repeat(map[string]func(*rapid.T){
			"": m.Check, "publish": m.Publish, "subscribe": m.Subscribe,
			"receive": m.Receive, "receive more": m.Receive, "receive still more": m.Receive,
			"ack": m.Ack, "nack": m.Nack, "extend": m.Extend, "set prefetch": m.SetPrefetch,
			"sleep": m.Sleep, "close": m.CloseConsumer,
			"delete channel": m.DeleteChannel, "delete topic": m.DeleteTopic,
			"restart": m.Restart,
		})
	})
	if end != nil {
		panic(end)
	}
}
