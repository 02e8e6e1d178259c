package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// NATSFleet is a cluster of nats-servers with JetStream, each in a process of its own.
type NATSFleet struct {
	// URL names all nodes.
	URL   string
	Nodes []*NATSNode
}

// NATSNode is one of them. Its addresses stay the same when it is started again.
type NATSNode struct {
	// Name is "n1", "n2" and so on; Addr is "127.0.0.1:PORT".
	Name, Addr string

	monitor string
	path    string
	args    []string
	cmd     *exec.Cmd
	said    *tail
}

// BuildNATSServer builds nats-server into dir, and returns its path.
func BuildNATSServer(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "nats-server")
	if _, err := goCommand(ctx, "build", "-o", path, "github.com/nats-io/nats-server/v2"); err != nil {
		return "", fmt.Errorf("build nats-server: %w", err)
	}
	return path, nil
}

// StartNATSFleet starts a cluster of n nodes with their data in dir, and returns when it
// has a leader.
func StartNATSFleet(path, dir string, n int) (*NATSFleet, error) {
	f := &NATSFleet{}
	var clients, routes []string
	for i := range n {
		addrs := make([]string, 3) // for clients, the other nodes, and questions about health
		for k := range addrs {
			var err error
			if addrs[k], err = LowAddress(); err != nil {
				return nil, err
			}
		}
		name := fmt.Sprintf("n%d", i+1)
		f.Nodes = append(f.Nodes, &NATSNode{Name: name, Addr: addrs[0], monitor: addrs[2], path: path, args: []string{
			"--name", name, "--addr", "127.0.0.1", "--port", portOf(addrs[0]), "--http_port", portOf(addrs[2]),
			"--cluster_name", "fleet", "--cluster", "nats://" + addrs[1],
			"--jetstream", "--store_dir", filepath.Join(dir, name),
		}})
		clients = append(clients, addrs[0])
		routes = append(routes, "nats://"+addrs[1])
	}
	f.URL = "nats://" + strings.Join(clients, ",")
	for _, node := range f.Nodes {
		node.args = append(node.args, "--routes", strings.Join(routes, ","))
		if err := node.Start(); err != nil {
			return nil, errors.Join(err, f.Stop())
		}
	}
	for _, node := range f.Nodes {
		if err := node.Healthy(); err != nil {
			return nil, errors.Join(err, f.Stop())
		}
	}
	return f, nil
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// Stop ends all nodes, at once.
func (f *NATSFleet) Stop() error {
	var err error
	for _, node := range f.Nodes {
		err = errors.Join(err, node.Kill())
	}
	return err
}

// Start starts the process of the node.
func (n *NATSNode) Start() error {
	n.said = new(tail)
	n.cmd = exec.Command(n.path, n.args...)
	n.cmd.Stdout, n.cmd.Stderr = n.said, n.said
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives a test
	if err := n.cmd.Start(); err != nil {
		n.cmd = nil
		return fmt.Errorf("start nats-server %s: %w", n.Name, err)
	}
	return nil
}

// Healthy waits until the node has caught up with the cluster.
func (n *NATSNode) Healthy() error {
	for until := time.Now().Add(2 * startWithin); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + n.monitor + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(until) {
			return fmt.Errorf("nats-server %s is not healthy; it said: %s", n.Name, n.said)
		}
	}
}

// Kill ends the process as nothing else does, and returns when it has ended.
func (n *NATSNode) Kill() error {
	if n.cmd == nil {
		return nil
	}
	_ = n.cmd.Process.Kill() // it may have ended already
	err := n.cmd.Wait()
	n.cmd = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
