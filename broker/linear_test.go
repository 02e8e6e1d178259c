package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// What somebody did with one message, and what came of it.
type messageOp struct {
	kind    string // publish, receive, ack, nack, extend
	body    string
	attempt uint32
}

// The life of one message, to whoever watches from outside: it is published once, then
// leased again and again with growing attempts, until an ack meets the present lease.
// A lease may end by itself at any time, which is seen only by what it allows.
type messageState struct {
	published, leased, done bool
	attempt                 uint32
}

var messageModel = porcupine.Model{
	Init: func() any { return messageState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op, ok := state.(messageState), input.(messageOp), output.(bool)
		holds := s.leased && s.attempt == op.attempt
		switch op.kind {
		case "publish":
			legal := !s.published
			s.published = true
			return legal, s
		case "receive":
			legal := s.published && !s.done && op.attempt == s.attempt+1
			s.leased, s.attempt = true, op.attempt
			return legal, s
		}
		if !ok { // the lease had ended, or ended in that moment
			s.leased = s.leased && !holds
			return true, s
		}
		switch op.kind {
		case "ack":
			s.leased, s.done = false, true
		case "nack":
			s.leased = false
		}
		return holds, s
	},
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byMessage := map[string][]porcupine.Operation{}
		for _, op := range history {
			body := op.Input.(messageOp).body
			byMessage[body] = append(byMessage[body], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byMessage {
			parts = append(parts, ops)
		}
		return parts
	},
}

type history struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) add(client int, call int64, op messageOp, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: ok, Return: h.now()})
}

// Publishers and consumers that ack, nack, extend, dawdle and die, with leases so short
// that they end all the time: each message's life is one that is allowed.
func TestEachMessageLivesOneLife(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := open(t, broker.Options{Dir: dir, Sync: broker.SyncNever})
		h := &history{start: time.Now()}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		var wg sync.WaitGroup
		for p := range 2 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					body := fmt.Sprintf("%d-%d", p, i)
					call := h.now()
					b.publish("t", body)
					h.add(p, call, messageOp{"publish", body, 0}, true)
					time.Sleep(time.Millisecond)
				}
			})
		}
		for client := range 5 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(client)))
				for ctx.Err() == nil {
					consumeForAWhile(ctx, b, h, 2+client, r)
				}
			})
		}
		wg.Wait()
		cancel()
		result, _ := porcupine.CheckOperationsVerbose(messageModel, h.ops, 20*time.Second)
		if result != porcupine.Ok {
			t.Errorf("%d operations: %s", len(h.ops), result)
		}
		t.Logf("%d operations", len(h.ops))
	}
}

func consumeForAWhile(ctx context.Context, b bench, h *history, client int, r *rand.Rand) {
	c, err := b.Subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1 + r.IntN(8), Lease: 3 * time.Millisecond})
	if err != nil {
		b.t.Error(err)
		return
	}
	defer c.Close()
	buf := make([]millrace.Delivery, 4)
	for range 20 {
		call := h.now()
		n, err := c.Receive(ctx, buf)
		if err != nil {
			return
		}
		for _, d := range buf[:n] {
			h.add(client, call, messageOp{"receive", string(d.Body), d.Attempt}, true)
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
		for _, d := range buf[:n] {
			settle(b.t, c, h, client, r, d)
		}
	}
}

func settle(t testing.TB, c *broker.Consumer, h *history, client int, r *rand.Rand, d millrace.Delivery) {
	op := messageOp{"ack", string(d.Body), d.Attempt}
	call := h.now()
	var err error
	switch r.IntN(6) {
	case 0:
		return // forgotten
	case 1:
		op.kind = "nack"
		err = c.Nack(context.Background(), time.Duration(r.IntN(3))*time.Millisecond, d)
	case 2:
		op.kind = "extend"
		err = c.Extend(context.Background(), d)
	default:
		err = c.Ack(context.Background(), d)
	}
	if err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
		t.Error(err)
	}
	h.add(client, call, op, err == nil)
}
