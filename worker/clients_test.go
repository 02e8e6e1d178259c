package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/worker"
)

const (
	clientID    = "abcdefghijklmnop"
	clientReply = "reply." + clientID
)

var silent = worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) { return nil, nil })

// client is what a client has on the broker.
type client struct {
	*rig
	presence millrace.Subscription
}

func (r *rig) client() *client {
	r.Helper()
	if err := r.broker.Declare(r.Context(), clientReply, control.ReplyChannel); err != nil {
		r.Fatal(err)
	}
	c := &client{rig: r}
	c.come()
	return c
}

func (c *client) come() {
	c.Helper()
	var err error
	c.presence, err = c.broker.Subscribe(c.Context(), control.Topic(queue), control.ClientChannel(clientID), millrace.SubscribeOptions{})
	if err != nil {
		c.Fatal(err)
	}
}

func (c *client) die() {
	c.Helper()
	if err := c.presence.Close(); err != nil {
		c.Fatal(err)
	}
}

func (c *client) hasTopic() bool {
	c.Helper()
	_, err := c.broker.Broker.Depth(c.Context(), clientReply, control.ReplyChannel)
	if err != nil && !errors.Is(err, millrace.ErrNotFound) {
		c.Fatal(err)
	}
	return err == nil
}

func TestTheReplyTopicOfAClientThatNeverComesBackIsRemoved(t *testing.T) {
	for name, begin := range map[string]func(*client){
		"which was answered": func(c *client) { c.publish(queue, "a", "id", "job-0", "reply-to", clientReply) },
		"which asked nothing": func(c *client) {
			hello := control.Order{Op: control.Attend, ReplyTo: clientReply}
			if err := c.broker.Publish(c.Context(), control.Topic(queue), hello.Encode()); err != nil {
				c.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, silent, worker.Config{}, func(r *rig) {
				c := r.client()
				begin(c)
				time.Sleep(time.Hour)
				r.equal("its topic while it lives", c.hasTopic(), true)
				c.die()
				time.Sleep(15 * time.Second)
				r.equal("its topic soon after its death", c.hasTopic(), true)
				time.Sleep(25 * time.Second)
				r.equal("its topic", c.hasTopic(), false)
				removed := len(r.broker.log("delete " + clientReply))
				time.Sleep(15 * time.Second)
				r.equal("removed again, should somebody have answered it", len(r.broker.log("delete "+clientReply)) > removed, true)
				time.Sleep(time.Hour)
				removed = len(r.broker.log("delete " + clientReply))
				time.Sleep(time.Hour)
				r.equal("removed later", len(r.broker.log("delete "+clientReply)), removed)
			})
		})
	}
}

// With no worker alive nobody hears that a client cancels what it asked for.
func TestTasksOfAClientThatLeftBeforeTheWorkerCameAreNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.client()
		r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
		r.publish(queue, "b", "id", "job-1", "reply-to", clientReply)
		c.die()
		if err := r.broker.Delete(t.Context(), clientReply, ""); err != nil {
			t.Fatal(err)
		}
		ran := 0
		r.serve(worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
			ran++
			return nil, nil
		}), worker.Config{Replicas: 1})
		time.Sleep(time.Second)
		r.equal("tasks that ran", ran, 0)
		r.equal("left in the queue", r.depth(), millrace.Depth{})

		r.client()
		hello := control.Order{Op: control.Attend, ReplyTo: clientReply}
		if err := r.broker.Publish(t.Context(), control.Topic(queue), hello.Encode()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.publish(queue, "c", "id", "job-2", "reply-to", clientReply)
		synctest.Wait()
		r.equal("tasks that ran when it had come back", ran, 1)
		r.end()
	})
}

func TestNobodyAnswersAClientThatHasLeft(t *testing.T) {
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
		time.Sleep(2 * time.Minute) // longer than the lease, from which on others may have answered
		return nil, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		c := r.client()
		r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
		time.Sleep(85 * time.Second) // it was seen 5 seconds ago, which is longer than a lease before the answer
		c.die()
		if err := r.broker.Delete(r.Context(), clientReply, ""); err != nil {
			r.Fatal(err)
		}
		time.Sleep(36 * time.Second)
		r.equal("its topic", len(r.broker.log("publish "+clientReply)), 0)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

func TestAnAnswerThatTookLongLeavesNoTopicBehind(t *testing.T) {
	inBubble(t, silent, worker.Config{}, func(r *rig) {
		c := r.client()
		refused := errors.New("not now")
		r.broker.set(func(b *tapped) {
			b.refuse = func(call string) error {
				if strings.HasPrefix(call, "publish "+clientReply) {
					return refused
				}
				return nil
			}
		})
		r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
		time.Sleep(5 * time.Second)
		c.die()
		if err := r.broker.Broker.Delete(r.Context(), clientReply, ""); err != nil {
			r.Fatal(err)
		}
		r.broker.set(func(b *tapped) { b.refuse = nil })
		time.Sleep(6 * time.Second)
		r.equal("answers", len(r.broker.log("publish "+clientReply)) > 0, true)
		r.equal("times its topic was removed", len(r.broker.log("delete "+clientReply)) > 0, true)
	})
}

// A task that ran twice, because a broker was lost, say, can be answered once more just after its
// client has left. On brokers where publishing makes a topic that topic has to go.
func TestAnAnswerThatCameJustTooLateLeavesNoTopicBehind(t *testing.T) {
	for name, wait := range map[string]time.Duration{"for the next look": 11 * time.Second, "for the worker's end": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.serve(silent, worker.Config{Replicas: 1})
				c := r.client()
				r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
				time.Sleep(time.Second)
				c.die()
				if err := r.broker.Broker.Delete(r.Context(), clientReply, ""); err != nil {
					t.Fatal(err)
				}
				r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
				synctest.Wait()
				r.equal("answers", len(r.broker.log("publish "+clientReply)), 2)
				time.Sleep(wait)
				if wait == 0 {
					r.stop()
					if err := <-r.served; !errors.Is(err, context.Canceled) {
						t.Errorf("Serve returned %v", err)
					}
				}
				r.equal("times its topic was removed", len(r.broker.log("delete "+clientReply)), 1)
				r.stop()
				r.broker.Close()
			})
		})
	}
}

func TestABrokerThatCannotBeAskedSaysNothingAboutClients(t *testing.T) {
	inBubble(t, silent, worker.Config{}, func(r *rig) {
		c := r.client()
		r.publish(queue, "a", "id", "job-0", "reply-to", clientReply)
		synctest.Wait()
		r.broker.set(func(b *tapped) { b.blind = errors.New("who knows") })
		c.die()
		time.Sleep(time.Hour)
		r.equal("its topic", c.hasTopic(), true)
	})
}

func TestTasksOfAClientThatIsGoneAreDroppedUntilItComesBack(t *testing.T) {
	ran := 0
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
		ran++
		return nil, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		c := r.client()
		ask := func(id string) {
			r.publish(queue, "a", "id", id, "reply-to", clientReply)
			synctest.Wait()
		}
		ask("job-0")
		r.equal("runs while it lives", ran, 1)
		c.die()
		time.Sleep(40 * time.Second)
		ask("job-1")
		r.equal("runs after its death", ran, 1)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
		c.come()
		time.Sleep(11 * time.Second)
		ask("job-1")
		r.equal("runs after its return", ran, 2)
	})
}
