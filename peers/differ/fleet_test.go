package differ

import (
	"testing"

	"github.com/millrace/millrace/peers/node"
)

// addresses are what belongs to one broker of a pair: HTTP addresses.
type addresses struct{ theirs, ours string }

// ask asks the one that belongs to the session's broker.
func (a addresses) ask(method, target string, body ...string) func(*session) {
	return func(s *session) {
		addr := a.theirs
		if s.node.Name == "millrace" {
			addr = a.ours
		}
		s.web("http://"+addr, method, target, first(body))
	}
}

func first(body []string) string {
	if len(body) == 0 {
		return ""
	}
	return body[0]
}

// nsqlookupd knows of Millrace what it would know of nsqd, whatever comes and goes.
func TestNSQLookupd(t *testing.T) {
	t.Parallel()
	theirs, ours := nsqlookupd(t), nsqlookupd(t)
	p := pair{theirs: start(t, node.NSQD, registered(theirs)), ours: start(t, node.Millrace, registered(ours))}
	knows(t, theirs)
	knows(t, ours)
	at := addresses{theirs.HTTP, ours.HTTP}
	tw := p.twins(t, t, "fleet")
	t.Cleanup(tw.close)
	compare := func(step ...func(*session)) {
		t.Helper()
		tw.do(steps(step).play)
		for _, target := range []string{
			"/nodes", "/topics", "/lookup?topic={T}", "/channels?topic={T}", "/lookup?topic={T}%23ephemeral", "/channels?topic={T}%23ephemeral", "/lookup?topic={T}.new",
		} {
			tw.soon(at.ask("GET", target))
		}
	}
	compare()
	compare(web("POST", "/topic/create?topic={T}"))
	compare(web("POST", "/channel/create?topic={T}&channel=c"), web("POST", "/channel/create?topic={T}&channel=d"))
	compare(open("a"), ask("a", sub("{T}", "e#ephemeral")), open("b"), ask("b", sub("{T}#ephemeral", "c")))
	compare(hangUp("a"), hangUp("b"))
	compare(web("POST", "/channel/delete?topic={T}&channel=d"))
	compare(web("POST", "/topic/pause?topic={T}"), web("POST", "/channel/empty?topic={T}&channel=c"))

	// Channels that a new topic has elsewhere get its first message too.
	for _, channel := range []string{"x", "y", "z%23ephemeral"} {
		tw.do(at.ask("POST", "/channel/create?topic={T}.new&channel="+channel))
	}
	compare(open("p"), ask("p", pub("{T}.new", "1")))
	tw.soon(web("GET", "/stats?format=json&include_mem=0&include_clients=0&topic={T}.new"))
	tw.do(at.ask("POST", "/channel/create?topic={T}.web&channel=x"))
	tw.do(web("POST", "/pub?topic={T}.web", "1"))
	tw.soon(web("GET", "/stats?format=json&include_mem=0&include_clients=0&topic={T}.web"))

	compare(web("POST", "/topic/delete?topic={T}"))
	compare(web("POST", "/topic/create?topic={T}"))

	// Another nsqlookupd in place of the first: it learns everything, the first forgets.
	theirs2, ours2 := nsqlookupd(t), nsqlookupd(t)
	move := func(s *session) {
		addr := theirs2.TCP
		if s.node.Name == "millrace" {
			addr = ours2.TCP
		}
		s.web("http://"+s.node.HTTP, "PUT", "/config/nsqlookupd_tcp_addresses", `["`+addr+`"]`)
		s.log = s.log[:len(s.log)-1] // it has the address in it
	}
	tw.do(move)
	at = addresses{theirs2.HTTP, ours2.HTTP}
	compare()
	at = addresses{theirs.HTTP, ours.HTTP}
	compare()
}
