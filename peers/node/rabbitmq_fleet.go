package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// RabbitFleet is a cluster of rabbitmq-servers on this machine, which share one Erlang port
// mapper.
type RabbitFleet struct {
	Nodes []*RabbitMQ

	mapper *exec.Cmd
	life   io.Closer // the mapper ends, after the nodes, when it is closed
}

// runRabbitNode starts a server that has its port mapper elsewhere, and ends it when standard
// input is closed.
const runRabbitNode = `exec 3<&0
"$0" </dev/null & server=$!
{ read -r _ <&3; kill -TERM $server; } &
wait $server`

// runMapper starts a port mapper, and ends it when standard input is closed and no node is left:
// one that stops looks for its mapper, and would start another.
const runMapper = `exec 3<&0
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null & mapper=$!
read -r _ <&3
while epmd -port "$ERL_EPMD_PORT" -names | grep -q '^name'; do sleep 1; done
kill $mapper`

// StartRabbitFleet starts a cluster of n nodes with their data in dir, and returns when all of
// them are in it. More lines for their rabbitmq.conf may be given.
func StartRabbitFleet(ctx context.Context, dir string, n int, conf ...string) (*RabbitFleet, error) {
	mapper, err := LowAddress()
	if err != nil {
		return nil, err
	}
	f := &RabbitFleet{}
	conf = append(conf, "cluster_formation.peer_discovery_backend = classic_config")
	host := rabbitHost{mapper: mapper, cookie: rand.Text(), script: runRabbitNode}
	for i := range n {
		own := filepath.Join(dir, fmt.Sprint(i+1))
		if err := os.Mkdir(own, 0o700); err != nil {
			return nil, err
		}
		node, err := newRabbitMQ(own, host)
		if err != nil {
			return nil, err
		}
		f.Nodes = append(f.Nodes, node)
		conf = append(conf, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", i+1, node.Node))
	}
	for _, node := range f.Nodes {
		if err := node.configure(conf, nil); err != nil {
			return nil, err
		}
	}
	if err := f.startMapper(mapper); err != nil {
		return nil, err
	}
	if err := f.startNodes(ctx); err != nil {
		return nil, errors.Join(err, f.Stop())
	}
	return f, nil
}

func (f *RabbitFleet) startMapper(addr string) error {
	f.mapper = exec.Command("sh", "-c", runMapper)
	f.mapper.Env = append(os.Environ(), "ERL_EPMD_PORT="+portOf(addr))
	f.mapper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	life, err := f.mapper.StdinPipe()
	if err == nil {
		f.life = life
		err = f.mapper.Start()
	}
	if err != nil {
		f.mapper = nil
		return fmt.Errorf("start epmd: %w", err)
	}
	for until := time.Now().Add(startWithin); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(until) {
			return errors.Join(fmt.Errorf("epmd does not answer: %w", err), f.Stop())
		}
	}
}

// startNodes starts the first node, which makes the cluster, and then the others, which join it.
func (f *RabbitFleet) startNodes(ctx context.Context) error {
	if err := f.Nodes[0].Start(); err != nil {
		return err
	}
	started := make(chan error)
	for _, node := range f.Nodes[1:] {
		go func() { started <- node.Start() }()
	}
	var err error
	for range f.Nodes[1:] {
		err = errors.Join(err, <-started)
	}
	if err != nil {
		return err
	}
	_, err = f.Nodes[0].Ctl(ctx, "await_online_nodes", fmt.Sprint(len(f.Nodes)))
	return err
}

// URL is that of a virtual host for a driver, with the user guest. It names all nodes.
func (f *RabbitFleet) URL(vhost string) string {
	var hosts []string
	for _, node := range f.Nodes {
		hosts = append(hosts, node.AMQP)
	}
	return strings.Replace(f.Nodes[0].URL(vhost), f.Nodes[0].AMQP, strings.Join(hosts, ","), 1)
}

// Stop kills all nodes and their port mapper, and returns when they have ended.
func (f *RabbitFleet) Stop() error {
	var err error
	for _, node := range f.Nodes {
		err = errors.Join(err, node.Kill())
	}
	if f.mapper == nil {
		return err
	}
	err = errors.Join(err, syscall.Kill(-f.mapper.Process.Pid, syscall.SIGKILL))
	_ = f.mapper.Wait() // killed, as it says
	_ = f.life.Close()  // Wait has closed it
	f.mapper = nil
	return err
}
