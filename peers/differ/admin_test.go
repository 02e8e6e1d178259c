package differ

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// admins are the nsqadmins of a pair.
type admins struct{ theirs, ours *node.Admin }

// ask asks the nsqadmin of the session's broker.
func (a admins) ask(method, target string, body ...string) func(*session) {
	return func(s *session) {
		admin := a.theirs
		if s.node.Name == "millrace" {
			admin = a.ours
		}
		s.web("http://"+admin.HTTP, method, target, strings.Join(body, ""))
	}
}

// delete is ask for a deletion. nsqadmin deletes first where it looks up, and then where
// it found: at a Millrace that is its own nsqlookupd that is the same, and the second time
// there is nothing left to delete. nsqadmin warns of that, and goes on.
func (a admins) delete(target string) func(*session) {
	return func(s *session) {
		a.ask("DELETE", target)(s)
		last := &s.log[len(s.log)-1]
		*last = twice.ReplaceAllString(*last, `\"}"`)
	}
}

var twice = regexp.MustCompile(`WARNING: got response 404 .*_NOT_FOUND[\\"}]+$`)

func nsqadmin(t *testing.T, lookupds, nodes []string) *node.Admin {
	t.Helper()
	a, err := node.NSQAdmin(lookupds, nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Errorf("stop nsqadmin: %v", err)
		}
	})
	return a
}

func nsqlookupd(t *testing.T) *node.Lookupd {
	t.Helper()
	l, err := node.NSQLookupd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Errorf("stop nsqlookupd: %v", err)
		}
	})
	return l
}

func registered(l *node.Lookupd) func(*Options) {
	return func(o *Options) { o.NSQLookupdTCPAddresses = []string{l.TCP} }
}

// knows waits until the nsqlookupd knows its node: nsqd asks it for a new topic's channels
// only from then on.
func knows(t *testing.T, l *node.Lookupd) {
	t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		resp, err := http.Get("http://" + l.HTTP + "/nodes")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			t.Fatal(err)
		case !strings.Contains(string(body), `"producers":[]`):
			return
		case time.Now().After(until):
			t.Fatalf("no node has registered: %s", body)
		}
	}
}

// nsqadmin shows of Millrace what it shows of nsqd, and does with it what it does.
func TestNSQAdmin(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	tour(t, p, admins{nsqadmin(t, nil, []string{p.theirs.HTTP}), nsqadmin(t, nil, []string{p.ours.HTTP})})
}

// The same with nsqlookupd between them.
func TestNSQAdminByNSQLookupd(t *testing.T) {
	t.Parallel()
	theirs, ours := nsqlookupd(t), nsqlookupd(t)
	p := pair{theirs: start(t, node.NSQD, registered(theirs)), ours: start(t, node.Millrace, registered(ours))}
	knows(t, theirs)
	knows(t, ours)
	tour(t, p, admins{nsqadmin(t, []string{theirs.HTTP}, nil), nsqadmin(t, []string{ours.HTTP}, nil)})
}

// Millrace is its own nsqlookupd.
func TestNSQAdminWithoutNSQLookupd(t *testing.T) {
	t.Parallel()
	l := nsqlookupd(t)
	p := pair{theirs: start(t, node.NSQD, registered(l)), ours: start(t, node.Millrace, nil)}
	knows(t, l)
	tour(t, p, admins{nsqadmin(t, []string{l.HTTP}, nil), nsqadmin(t, []string{p.ours.HTTP}, nil)})
}

// tour is what somebody does with nsqadmin's pages, one after the other. What they show
// of a change comes when nsqlookupd knows it.
func tour(t *testing.T, p pair, a admins) {
	t.Helper()
	tw := p.twins(t, t, "admin")
	t.Cleanup(tw.close)
	pages := func() {
		t.Helper()
		for _, page := range []string{"/api/topics", "/api/topics/{T}", "/api/topics/{T}/c", "/api/counter", "/api/nodes"} {
			tw.soon(a.ask("GET", page))
		}
	}
	post := func(path, body string) {
		t.Helper()
		tw.do(a.ask("POST", path, body))
		pages()
	}
	pages()
	// nsqadmin makes it at nsqlookupd alone: nsqd has it when somebody publishes.
	tw.do(a.ask("POST", "/api/topics", `{"topic":"not/good"}`))
	tw.do(a.ask("POST", "/api/topics", `{"topic":"{T}","channel":"c"}`))
	tw.do(given("1", "2", "3"))
	pages()
	tw.do(steps{consumer("a"), ask("a", "RDY 1\n")}.play)
	pages()
	post("/api/topics/{T}/c", `{"action":"pause"}`)
	tw.do(steps{send("a", "FIN <1>\n"), nothing("a")}.play)
	post("/api/topics/{T}/c", `{"action":"unpause"}`)
	tw.do(frames("a", 1))
	post("/api/topics/{T}", `{"action":"pause"}`)
	tw.do(given("4"))
	pages()
	post("/api/topics/{T}", `{"action":"empty"}`)
	post("/api/topics/{T}", `{"action":"unpause"}`)
	post("/api/topics/{T}/c", `{"action":"empty"}`)
	post("/api/topics/{T}/c", `{"action":"dance"}`)
	post("/api/topics", `{"topic":"{T}","channel":"d"}`)
	tw.do(a.delete("/api/topics/{T}/d"))
	tw.do(a.delete("/api/topics/{T}/c"))
	tw.do(end("a"))
	pages()
	tw.do(a.delete("/api/topics/{T}"))
	pages()
}
