package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryNsqlookupdKnowsTheTopicsAndChannels(t *testing.T) {
	inFleet(t, func(f *fleet) {
		expect := func(want ...string) {
			t.Helper()
			soon()
			for addr, l := range f.lookupds {
				if got := l.names(); !slices.Equal(got, want) {
					t.Fatalf("%s knows %q, want %q", addr, got, want)
				}
			}
		}
		f.channel(t, "orders", "billing")
		f.channel(t, "orders", "tail#ephemeral")
		f.channel(t, "audit", "archive")
		expect("audit", "audit archive", "orders", "orders billing", "orders tail#ephemeral")
		if err := f.broker.DeleteChannel("orders", "billing"); err != nil {
			t.Fatal(err)
		}
		expect("audit", "audit archive", "orders", "orders tail#ephemeral")
		if err := f.broker.DeleteTopic("audit"); err != nil {
			t.Fatal(err)
		}
		expect("orders", "orders tail#ephemeral")
		for _, l := range f.lookupds {
			said := strings.Join(l.said, "\n") + "\n"
			if strings.Index(said, "UNREGISTER audit archive") > strings.Index(said, "UNREGISTER audit\n") {
				t.Error("the topic was taken away before its channel")
			}
			if want := `IDENTIFY {"broadcast_address":"me.example","hostname":`; !strings.HasPrefix(said, want) ||
				!strings.Contains(l.said[0], `"http_port":4151,"tcp_port":4150,"version":"1.3.0"}`) {
				t.Errorf("said %q first", l.said[0])
			}
			if n := l.count("REGISTER orders"); n != 1 {
				t.Errorf("told of a topic %d times", n)
			}
		}
	})
}

func TestManyTopicsAreRegisteredManyAtOnce(t *testing.T) {
	inFleet(t, func(f *fleet) {
		for i := range 2*askAtOnce + 10 {
			f.channel(t, fmt.Sprintf("topic%04d", i), "c")
		}
		soon()
		if got := len(f.lookupds["a:4160"].names()); got != 2*(2*askAtOnce+10) {
			t.Errorf("%d names are known", got)
		}
	})
}

func TestNsqlookupdHearsEvery15SecondsThatTheBrokerIsAlive(t *testing.T) {
	inFleet(t, func(f *fleet) {
		time.Sleep(time.Minute + time.Second)
		if got := f.lookupds["a:4160"].count("PING"); got != 4 {
			t.Errorf("%d pings in a minute", got)
		}
	})
}

func TestABrokenConnectionIsMadeAgainAtOnceAndEverythingRegistered(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channel(t, "orders", "billing")
		soon()
		f.lookupds["a:4160"].set(false)
		time.Sleep(firstRetry)
		soon()
		if got := f.lookupds["a:4160"].names(); len(got) != 2 {
			t.Errorf("knows %q again", got)
		}
		if total, _ := f.lookupds["b:4160"].dials(); total != 1 {
			t.Errorf("the other was connected to %d times", total)
		}
	})
}

func TestAnNsqlookupdThatIsDownIsAskedLessAndLessOften(t *testing.T) {
	inFleet(t, func(f *fleet) {
		l := f.lookupds["a:4160"]
		synctest.Wait()
		var tries atomic.Int32
		f.set(func(ctx context.Context, addr string) (net.Conn, error) {
			tries.Add(1) // b has its connection
			return l.dial(ctx)
		})
		l.set(true)
		time.Sleep(10 * time.Minute)
		if n := tries.Load(); n < 40 || n > 100 { // 7.5 to 15 s apart once they have grown
			t.Errorf("%d tries in ten minutes", n)
		}
		l.set(false)
		f.channel(t, "orders", "billing")
		time.Sleep(lastRetry + time.Second)
		if got := l.names(); len(got) != 2 {
			t.Errorf("knows %q when it is back", got)
		}
		// Once it has been well for a while, it is tried again at once.
		time.Sleep(time.Minute)
		l.set(false)
		time.Sleep(2 * firstRetry)
		if got := l.names(); len(got) != 2 {
			t.Errorf("knows %q after it was well and broke", got)
		}
	})
}

func TestAddressesChangeWhileTheBrokerRuns(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channel(t, "orders", "billing")
		soon()
		f.mu.Lock()
		f.lookupds["c:4160"] = &nsqlookupd{}
		f.mu.Unlock()
		f.registrar.setAddresses([]string{"b:4160", "c:4160", "c:4160"})
		soon()
		for addr, want := range map[string][2]int{"a:4160": {1, 0}, "b:4160": {1, 1}, "c:4160": {1, 1}} {
			if total, open := f.lookupds[addr].dials(); [2]int{total, open} != want {
				t.Errorf("%s: %d connections, %d open, want %v", addr, total, open, want)
			}
		}
		if got := f.lookupds["c:4160"].names(); len(got) != 2 {
			t.Errorf("the new one knows %q", got)
		}
		if got := f.registrar.addresses(); !slices.Equal(got, []string{"b:4160", "c:4160", "c:4160"}) {
			t.Errorf("the addresses are %q", got)
		}
	})
}

func TestAnNsqlookupdThatMakesNoSenseIsLeftAndTriedAgain(t *testing.T) {
	for name, answer := range map[string]func(string) string{
		"an error to IDENTIFY": func(string) string { return "E_INVALID client must IDENTIFY" },
		"an error to REGISTER": func(c string) string {
			if strings.HasPrefix(c, "IDENTIFY") {
				return "{}"
			}
			return "E_BAD_TOPIC"
		},
		"far too much": func(string) string { return strings.Repeat("x", maxLookupAnswer+1) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				f.channel(t, "orders", "billing")
				f.lookupds["a:4160"].say(answer)
				time.Sleep(time.Minute)
				if total, _ := f.lookupds["a:4160"].dials(); total < 4 || total > 20 {
					t.Errorf("%d connections in a minute", total)
				}
				if got := f.lookupds["b:4160"].names(); len(got) != 2 {
					t.Errorf("the other knows %q", got)
				}
			})
		})
	}
}

func TestAnNsqlookupdThatIsSilentIsGivenUp(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var dials atomic.Int32
		f.set(func(context.Context, string) (net.Conn, error) {
			dials.Add(1)
			ours, theirs := net.Pipe()
			go discard(ours)
			return theirs, nil
		})
		f.registrar.setAddresses([]string{"silent:1"})
		time.Sleep(time.Minute)
		if n := dials.Load(); n < 4 || n > 12 {
			t.Errorf("%d connections in a minute", n)
		}
	})
}

func TestAnAnswerIsNotBelievedToBeHuge(t *testing.T) {
	if _, err := readAnswer(strings.NewReader("\xff\xff\xff\xff")); err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("four gigabytes: %v", err)
	}
}
