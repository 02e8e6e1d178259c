package door

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Clients come, die in the middle of anything and come again: every message that was
// acknowledged is finished by somebody, and nothing else is.
func TestEveryMessageIsFinishedHoweverClientsDie(t *testing.T) {
	const producers, consumers, each = 3, 4, 2000
	d := serveTCP(t, Config{})
	if _, err := d.broker.Channel("t", "c"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	finished := map[string]bool{}
	accepted := make([]map[string]bool, producers)
	stop := make(chan struct{})
	var publishing, consuming sync.WaitGroup
	for i := range producers {
		accepted[i] = map[string]bool{}
		publishing.Go(func() { publishAll(d, i, each, accepted[i]) })
	}
	for i := range consumers {
		random := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // the same each time
		consuming.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				consumeSome(d, random.IntN(300), 1+random.IntN(50), func(body string) {
					mu.Lock()
					finished[body] = true
					mu.Unlock()
				})
			}
		})
	}
	publishing.Wait()
	eventually(t, "all is finished", func() bool {
		depth := d.depth("t", "c")
		return depth.Ready+depth.InFlight == 0
	})
	close(stop)
	consuming.Wait()
	n := 0
	for _, all := range accepted {
		for body := range all {
			if n++; !finished[body] {
				t.Errorf("%s was accepted and never finished", body)
			}
		}
	}
	if n < producers*each || n != len(finished) {
		t.Errorf("%d were accepted, want %d; %d finished", n, producers*each, len(finished))
	}
}

// publishAll publishes one by one and in batches, and reconnects now and then.
func publishAll(d *tcpDoor, who, count int, accepted map[string]bool) {
	c := d.dial()
	for i := 0; i < count; {
		if i%500 == 0 && i > 0 {
			_ = c.Close()
			c = d.dial()
		}
		bodies := []string{fmt.Sprint(who, " ", i)}
		if i++; i%3 == 0 && i < count {
			bodies = append(bodies, fmt.Sprint(who, " ", i))
			i++
			c.send(mpub("t", bodies...))
		} else {
			c.send(pub("t", bodies[0]))
		}
		c.want("OK")
		for _, b := range bodies {
			accepted[b] = true
		}
	}
	_ = c.Close()
}

// consumeSome finishes so many messages, requeues some, and hangs up with others in flight.
func consumeSome(d *tcpDoor, count, window int, finished func(string)) {
	raw, err := net.Dial("tcp", d.addr)
	if err != nil {
		return
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(200 * time.Millisecond))
	c := &client{Conn: raw, t: d.t, in: bufio.NewReader(raw)}
	if _, err := fmt.Fprintf(raw, "%sSUB t c\nRDY %d\n", magic, window); err != nil {
		return
	}
	for n := 0; n < count; {
		kind, data, err := c.raw()
		switch {
		case err != nil:
			var late net.Error
			if !errors.As(err, &late) && !errors.Is(err, io.EOF) {
				d.t.Errorf("read a frame: %v", err)
			}
			return
		case kind == 1:
			d.t.Errorf("the broker says %s", data)
			return
		case kind != 2:
			continue
		}
		n++
		id, body := string(data[10:26]), string(data[26:])
		if n%5 == 0 {
			_, err = fmt.Fprintf(raw, "REQ %s 0\n", id)
		} else if _, err = fmt.Fprintf(raw, "FIN %s\n", id); err == nil {
			finished(body) // or redelivered, if this was the last that was written
		}
		if err != nil {
			return
		}
	}
}
