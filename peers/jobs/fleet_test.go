//go:build fleet

package jobs_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/driver/nats"
	"github.com/millrace/millrace/peers/node"
)

// fleet is a broker that is a cluster of three nodes, which keep each queue on all of them.
type fleet struct {
	*system
	members []member
	// leader returns the name of the node that leads a topic's queue.
	leader func(ctx context.Context, topic string) (string, error)
	// lets says whether the cluster lets somebody new in; nil when it always does.
	lets func(ctx context.Context) bool
}

// member is a node of a cluster.
type member struct {
	name, addr  string
	kill, again func() error
}

var fleets = []struct {
	name  string
	start func(t *testing.T) *fleet
}{
	{"rabbitmq", startRabbitFleet},
	{"nats", startNATSFleet},
}

func startRabbitFleet(t *testing.T) *fleet {
	t.Helper()
	r, err := node.StartRabbitFleet(t.Context(), t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	// ctl asks a node that answers.
	ctl := func(ctx context.Context, args ...string) (out string, err error) {
		for _, n := range r.Nodes {
			if out, err = n.Ctl(ctx, append(args, "--no-table-headers")...); err == nil {
				break
			}
		}
		return out, err
	}
	f := &fleet{system: &system{url: r.URL("/"), ghosts: true}} // RabbitMQ 3.10 does, now and then
	f.topics = func(ctx context.Context) ([]string, error) {
		queues, err := ctl(ctx, "list_queues", "name")
		if err != nil {
			return nil, err
		}
		exchanges, err := ctl(ctx, "list_exchanges", "name")
		return strings.Fields(queues + " " + exchanges), err
	}
	f.leader = func(ctx context.Context, topic string) (string, error) {
		queues, err := ctl(ctx, "list_queues", "name", "leader", "members")
		for line := range strings.Lines(queues) {
			columns := strings.SplitN(line, "\t", 3)
			if len(columns) < 3 || columns[0] != topic {
				continue
			}
			if strings.Count(columns[2], "@") != len(r.Nodes) {
				t.Errorf("%s is on %s alone", topic, columns[2])
			}
			return columns[1], err
		}
		return "", err
	}
	for _, n := range r.Nodes {
		f.members = append(f.members, member{n.Node, n.AMQP, n.Kill, n.Start})
	}
	return f
}

func startNATSFleet(t *testing.T) *fleet {
	t.Helper()
	path, err := node.BuildNATSServer(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.StartNATSFleet(path, t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fleet{system: &system{url: n.URL + "?replicas=3"}}
	f.topics = func(ctx context.Context) ([]string, error) { return natsTopics(ctx, n.URL) }
	f.leader = func(ctx context.Context, topic string) (leader string, err error) {
		err = onNATS(n.URL, func(js jetstream.JetStream) error {
			s, err := js.Stream(ctx, nats.Stream(topic))
			if err == nil && s.CachedInfo().Cluster != nil {
				leader = s.CachedInfo().Cluster.Leader
			}
			return err
		})
		return leader, err
	}
	f.lets = func(ctx context.Context) bool { // JetStream answers nobody while it elects a leader
		return onNATS(n.URL, func(js jetstream.JetStream) error {
			_, err := js.AccountInfo(ctx)
			return err
		}) == nil
	}
	for _, one := range n.Nodes {
		f.members = append(f.members, member{one.Name, one.Addr, one.Kill, func() error {
			if err := one.Start(); err != nil {
				return err
			}
			return one.Healthy()
		}})
	}
	return f
}

// TestFleet has a job done exactly once while one node of the cluster after the other dies, and
// comes back: the one that leads the queue, those that the client and a worker are connected to
// most, and the one that leads the client's reply topic. Beside it another job has its workers
// killed, stopped and drained.
func TestFleet(t *testing.T) {
	for _, one := range fleets {
		t.Run(one.name, func(t *testing.T) {
			f := one.start(t)
			f.kind, f.t = one.name, t
			const queue = "fleet"
			workersComeAndGo(t, f.system, queue, *tasks/4, func(*job) {
				w := goWorker(t, f.url, queue, ttl)
				w.saysWithin(patience, "ready")
				others := f.replyTopics(t)
				j := newJob(t, f.system, queue, *tasks)
				j.base = *tasks
				part := j.size / 4
				f.lose(j, 1, part, w, "leads the queue", f.leads(t, queue))
				f.lose(j, part+1, 2*part, w, "is the client's", f.serves(t, j.asker))
				f.lose(j, 2*part+1, 3*part, w, "is a worker's", f.serves(t, w))
				own := slices.DeleteFunc(f.replyTopics(t), func(name string) bool {
					return slices.Contains(others, name) || strings.Contains(name, "/") // an exchange of RabbitMQ's
				})
				f.lose(j, 3*part+1, j.size, w, "leads the replies", f.leads(t, own[0]))
				j.finish()
				w.signal(syscall.SIGTERM)
				if err := w.wait(); err != nil {
					t.Errorf("the worker that saw it all: %v\n%s", err, w.stderr())
				}
			})
		})
	}
}

// lose gives a part of the job's inputs, kills a node in the middle of them, and starts it again
// when all goes on without it: the job, whoever was connected to it, and a job of somebody
// new on a queue that did not exist before.
func (f *fleet) lose(j *job, from, to int, worker *process, why string, m member) {
	t := j.t
	t.Helper()
	before := map[*process]int{j.asker: f.connections(t, j.asker), worker: f.connections(t, worker)}
	go j.give(from, to)
	j.until(from + (to-from)/10)
	began := time.Now()
	if err := m.kill(); err != nil {
		t.Fatal(err)
	}
	j.until(len(j.answers) + len(j.asker.lines)) // on their way before
	j.until(len(j.answers) + 1)
	t.Logf("%s: %s, which %s, is down; %d results are there, and %v later the next one", f.kind, m.name, why, len(j.answers), time.Since(began))
	j.until(from + (to-from)/2)
	for p, count := range before {
		eventually(t, patience, p.name+" is connected to the other nodes", func() bool { return f.connections(t, p) >= count })
	}
	t.Logf("%s: connected to others after %v", f.kind, time.Since(began))
	if f.lets != nil {
		eventually(t, patience, "the cluster lets somebody in", func() bool { return f.lets(t.Context()) })
	}
	another := newJob(t, f.system, fmt.Sprint("without.", from), replicas)
	w := goWorker(t, f.url, another.queue, ttl)
	another.give(1, another.size)
	another.finish()
	w.signal(syscall.SIGTERM)
	if err := w.wait(); err != nil {
		t.Errorf("a worker that came while a node was down: %v\n%s", err, w.stderr())
	}
	t.Logf("%s: another job is done after %v", f.kind, time.Since(began))
	if err := m.again(); err != nil {
		t.Fatal(err)
	}
	j.until(to)
}

// connections counts those of a process to all nodes; there are none to one that has died.
func (f *fleet) connections(t *testing.T, p *process) (n int) {
	t.Helper()
	peers, err := peersOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range f.members {
		n += peers[m.addr]
	}
	return n
}

// leads returns the node that leads a topic's queue.
func (f *fleet) leads(t *testing.T, topic string) (leader member) {
	t.Helper()
	var name string
	eventually(t, patience, topic+" has a leader", func() bool {
		var err error
		if name, err = f.leader(t.Context(), topic); err != nil {
			return false
		}
		i := slices.IndexFunc(f.members, func(m member) bool { return m.name == name })
		if i >= 0 {
			leader = f.members[i]
		}
		return i >= 0
	})
	return leader
}

// serves returns the node to which a process has most connections.
func (f *fleet) serves(t *testing.T, p *process) (most member) {
	t.Helper()
	peers, err := peersOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range f.members {
		if most.addr == "" || peers[m.addr] > peers[most.addr] {
			most = m
		}
	}
	if peers[most.addr] == 0 {
		t.Fatalf("%s has no connection to any node, but %v", p.name, peers)
	}
	return most
}

// established is a TCP connection's state in /proc/net/tcp.
const established = "01"

// peersOf counts the TCP connections of a process by the address at their other end.
func peersOf(pid int) (map[string]int, error) {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			own[target] = true
		}
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return nil, err
	}
	peers := map[string]int{}
	for line := range strings.Lines(string(table)) {
		columns := strings.Fields(line)
		if len(columns) < 10 || columns[3] != established || !own["socket:["+columns[9]+"]"] {
			continue
		}
		host, port, _ := strings.Cut(columns[2], ":")
		ip, err := strconv.ParseUint(host, 16, 32)
		if err != nil {
			return nil, err
		}
		number, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			return nil, err
		}
		addr := net.IPv4(byte(ip), byte(ip>>8), byte(ip>>16), byte(ip>>24)).String() //nolint:gosec // bytes
		peers[net.JoinHostPort(addr, strconv.FormatUint(number, 10))]++
	}
	return peers, nil
}
