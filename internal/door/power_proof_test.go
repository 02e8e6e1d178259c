package door

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// shop is a door of a broker whose disk can lose its power, in virtual time, and what its
// clients have been told.
type shop struct {
	t    *testing.T
	door *Door
	web  http.Handler
	ln   *pipes

	mu      sync.Mutex // guards assured, which is copied while a call writes
	assured assured
}

// assured is what is known of messages and channels by name.
type assured struct {
	sent     map[string]bool      // "topic/body": it may come
	safe     map[string]time.Time // it was answered OK: it must come, and not before
	finished map[string]bool      // "topic/channel/body": its FIN was sent
	deferred map[string]time.Time // "topic/channel/body": its REQ for later was taken
	channels map[string]string    // "topic/channel": "made" or "paused"; "" while that is asked for
}

func (k assured) clone() assured {
	return assured{maps.Clone(k.sent), maps.Clone(k.safe), maps.Clone(k.finished), maps.Clone(k.deferred), maps.Clone(k.channels)}
}

// openShop opens the doors of what the disk has. Close it.
func openShop(t *testing.T, fs vfs.FS) (s *shop, stop func()) {
	b, err := broker.Open(broker.Options{Dir: "data", Logger: quiet()}.On(fs).WithSegments(300))
	if err != nil {
		t.Fatal(err)
	}
	d := New(b, Config{Logger: quiet()})
	s = &shop{t: t, door: d, web: d.Handler(false), ln: &pipes{make(chan net.Conn), make(chan struct{})}}
	s.assured = assured{map[string]bool{}, map[string]time.Time{}, map[string]bool{}, map[string]time.Time{}, map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.ServeTCP(ctx, s.ln) }()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// talker is a client over TCP whose frames are read while it talks.
type talker struct {
	net.Conn
	frames chan string // "OK", "!E_…", or "id body"
}

func (s *shop) dial() *talker {
	mine, its := net.Pipe()
	s.ln.accepted <- its
	c := &talker{mine, make(chan string, 1000)}
	go func() {
		defer close(c.frames)
		in := client{in: bufio.NewReader(mine)}
		for {
			kind, data, err := in.raw()
			switch {
			case err != nil:
				return
			case kind == 2:
				c.frames <- fmt.Sprintf("%s %s", data[10:26], data[26:])
			case kind == 1:
				c.frames <- "!" + string(data)
			default:
				c.frames <- string(data)
			}
		}
	}()
	c.say(magic)
	return c
}

func (c *talker) say(parts ...string) { _, _ = c.Write([]byte(strings.Join(parts, ""))) }

// know changes what is known.
func (s *shop) know(change func(*assured)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.assured)
}

// publish notes the bodies, publishes them, and when it was answered OK, that they are safe.
func (s *shop) publish(topic string, delay time.Duration, bodies []string, ok func() bool) {
	s.know(func(k *assured) {
		for _, body := range bodies {
			k.sent[topic+"/"+body] = true
		}
	})
	due := time.Now().Add(delay)
	if !ok() {
		s.t.Errorf("%v was refused", bodies)
		return
	}
	s.know(func(k *assured) {
		for _, body := range bodies {
			k.safe[topic+"/"+body] = due
		}
	})
}

// post asks for a change of a channel and notes it when it was answered.
func (s *shop) post(what, topic, channel, becomes string) {
	name := topic + "/" + channel
	s.know(func(k *assured) { k.channels[name] = "" })
	if got := ask(s.web, "POST "+what+"?topic="+topic+"&channel="+channel, ""); got.status != http.StatusOK {
		s.t.Errorf("%s %s: %s", what, name, got)
	}
	s.know(func(k *assured) { k.channels[name] = becomes })
}

// consume takes n messages and finishes all but the last, which is requeued for an hour.
func (s *shop) consume(topic, channel string, n int) {
	c := s.dial()
	defer c.Close()
	c.say("SUB " + topic + " " + channel + "\n" + fmt.Sprintf("RDY %d\n", n))
	<-c.frames // OK
	later := ""
	for i := range n {
		frame, ok := <-c.frames
		id, body, isMessage := strings.Cut(frame, " ")
		if !ok || !isMessage {
			s.t.Fatalf("%q instead of a message", frame)
		}
		if i < n-1 {
			s.know(func(k *assured) { k.finished[topic+"/"+channel+"/"+body] = true })
			c.say("FIN " + id + "\n")
		} else {
			later = topic + "/" + channel + "/" + body
			c.say("REQ " + id + " 3600000\n")
		}
	}
	due := time.Now().Add(time.Hour)
	c.say("CLS\n")
	<-c.frames // CLOSE_WAIT: all that was taken
	s.know(func(k *assured) { k.deferred[later] = due })
}

// day is what the shop does, over both doors.
func (s *shop) day() {
	for _, topic := range []string{"t", "u"} {
		if got := ask(s.web, "POST /topic/create?topic="+topic, ""); got.status != http.StatusOK {
			s.t.Fatal(got)
		}
		s.post("/channel/create", topic, "one", "made")
		s.post("/channel/create", topic, "two", "made")
	}
	c := s.dial()
	defer c.Close()
	n := 0
	next := func(k int) (bodies []string) {
		for range k {
			n++
			bodies = append(bodies, fmt.Sprint("m", n))
		}
		return bodies
	}
	say := func(parts ...string) func() bool {
		return func() bool {
			c.say(parts...)
			return <-c.frames == "OK"
		}
	}
	web := func(path, body string) func() bool {
		return func() bool { return ask(s.web, "POST "+path, body).status == http.StatusOK }
	}
	for i := range 4 {
		topic := []string{"t", "u"}[i%2]
		one, many, later, line, lines := next(1), next(4), next(1), next(1), next(3)
		s.publish(topic, 0, one, say(pub(topic, one[0])))
		s.publish(topic, 0, many, say(mpub(topic, many...)))
		s.publish(topic, time.Hour, later, say("DPUB "+topic+" 3600000\n"+sized(later[0])))
		s.publish(topic, 0, line, web("/pub?topic="+topic, line[0]))
		s.publish(topic, 0, lines, web("/mpub?topic="+topic, strings.Join(lines, "\n")))
		s.consume(topic, "one", 6)
		time.Sleep(100 * time.Millisecond) // the housekeeper comes
	}
	s.post("/channel/pause", "t", "two", "paused")
	last := next(2)
	s.publish("t", 0, last, say(mpub("t", last...)))
}

// verify holds what a power loss has left to what clients were told.
func (k assured) verify(t *testing.T, disk *vfs.Mem) {
	s, stop := openShop(t, disk)
	defer stop()
	for name, state := range k.channels {
		topic, channel, _ := strings.Cut(name, "/")
		if state == "" {
			continue
		}
		var stats struct {
			Topics []struct {
				Channels []struct {
					Paused bool
				}
			}
		}
		_ = json.Unmarshal([]byte(ask(s.web, "GET /stats?format=json&topic="+topic+"&channel="+channel, "").body), &stats)
		if len(stats.Topics) != 1 || len(stats.Topics[0].Channels) != 1 || stats.Topics[0].Channels[0].Paused != (state == "paused") {
			t.Errorf("channel %s was %s; there is %+v", name, state, stats)
		}
		if ask(s.web, "POST /channel/unpause?topic="+topic+"&channel="+channel, "").status != http.StatusOK {
			t.Errorf("channel %s cannot be unpaused", name)
		}
		opened := time.Now()
		got := s.drain(topic, channel)
		time.Sleep(2 * time.Hour)
		late := s.drain(topic, channel)
		for _, body := range slices.Concat(got, late) {
			if !k.sent[topic+"/"+body] {
				t.Errorf("channel %s delivers %q, which was never published", name, body)
			}
		}
		for key, due := range k.safe {
			in, body, _ := strings.Cut(key, "/")
			if later, ok := k.deferred[name+"/"+body]; ok {
				due = later
			}
			early, came := slices.Contains(got, body), slices.Contains(late, body)
			if in == topic && !k.finished[name+"/"+body] && !early && !came {
				t.Errorf("channel %s has lost %s", name, body)
			}
			if in == topic && early && due.After(opened) {
				t.Errorf("channel %s delivers %s too soon", name, body)
			}
		}
	}
}

// drain takes and finishes all that a channel has now.
func (s *shop) drain(topic, channel string) (bodies []string) {
	c := s.dial()
	defer c.Close()
	c.say("SUB " + topic + " " + channel + "\nRDY 1000\n")
	for {
		synctest.Wait()
		select {
		case frame := <-c.frames:
			if id, body, ok := strings.Cut(frame, " "); ok && len(id) == 16 {
				bodies = append(bodies, body)
				c.say("FIN " + id + "\n")
			}
		default:
			return bodies
		}
	}
}

// The power goes before each call that changes the disk: whatever clients were assured over
// TCP and HTTP by then holds.
func TestPowerLossKeepsWhatTheDoorsHaveSaid(t *testing.T) {
	type moment struct {
		before  string
		at      time.Time
		assured assured
		disks   []*vfs.Mem
	}
	var moments []moment
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		var opened atomic.Pointer[shop]
		s, stop := openShop(t, vfs.Inject(disk, func(op vfs.Op) error {
			s := opened.Load()
			switch op.Kind {
			case vfs.OpCreate, vfs.OpRemove, vfs.OpRename, vfs.OpSyncDir, vfs.OpWrite, vfs.OpSync, vfs.OpTruncate:
				if s == nil {
					break
				}
				s.know(func(k *assured) {
					r := rand.New(rand.NewPCG(1, uint64(len(moments)))) //nolint:gosec // the same each time
					moments = append(moments, moment{op.String(), time.Now(), k.clone(), []*vfs.Mem{disk.Crash(), disk.CrashKeeping(r)}})
				})
			}
			return nil
		}))
		opened.Store(s)
		s.day()
		stop()
	})
	if len(moments) < 100 {
		t.Errorf("only %d moments", len(moments))
	}
	for i, m := range moments {
		for _, disk := range m.disks {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(m.at))
				if m.assured.verify(t, disk); t.Failed() {
					t.Fatalf("that was moment %d, before %s", i, m.before)
				}
			})
		}
	}
	t.Logf("%d moments", len(moments))
}
