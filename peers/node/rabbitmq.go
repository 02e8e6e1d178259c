package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ is the rabbitmq-server of Debian's package, with ports, files and an Erlang port
// mapper of its own. Whether the package's own server runs, or ever did, does not matter. Its addresses
// stay the same when it is started again.
type RabbitMQ struct {
	// AMQP is an address, "127.0.0.1:PORT".
	AMQP string
	// AMQPS is the same for TLS, where configured: "listeners.ssl.default = AMQPS" is replaced.
	AMQPS string
	// Node is what rabbitmqctl calls it.
	Node string

	sbin   string
	dir    string
	env    []string
	script string // that runs it
	cmd    *exec.Cmd
	life   io.Closer // the server ends when it is closed, also by the end of this process
	said   *tail
}

// scripts of the package: the links in its bin folder would change to another user.
const rabbitScripts = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// runRabbit starts the port mapper and the server, and ends them when standard input is closed.
const runRabbit = `exec 3<&0
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null & mapper=$!
"$0" </dev/null & server=$!
{ read -r _ <&3; kill -TERM $server; } &
wait $server
kill $mapper`

// A rabbitHost is where a server finds other Erlang nodes.
type rabbitHost struct {
	mapper string // address of the port mapper
	cookie string // which nodes that know each other have in common; "" for one of its own
	script string // that runs a server
}

// NewRabbitMQ is a server with its data in dir, not yet started. More lines for its
// rabbitmq.conf, and Erlang terms for the settings of its advanced.config, may be given.
func NewRabbitMQ(dir string, conf []string, advanced ...string) (*RabbitMQ, error) {
	mapper, err := LowAddress()
	if err != nil {
		return nil, err
	}
	r, err := newRabbitMQ(dir, rabbitHost{mapper: mapper, script: runRabbit})
	if err != nil {
		return nil, err
	}
	return r, r.configure(conf, advanced)
}

// newRabbitMQ is a server that still has to be configured.
func newRabbitMQ(dir string, on rabbitHost) (*RabbitMQ, error) {
	script, err := filepath.EvalSymlinks(rabbitScripts)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq-server is not installed (apt-get install rabbitmq-server): %w", err)
	}
	r := &RabbitMQ{sbin: filepath.Dir(script), dir: dir, script: on.script}
	var distribution string
	for _, addr := range []*string{&r.AMQP, &r.AMQPS, &distribution} {
		if *addr, err = LowAddress(); err != nil {
			return nil, err
		}
	}
	if on.cookie != "" {
		if err := os.WriteFile(filepath.Join(dir, ".erlang.cookie"), []byte(on.cookie), 0o400); err != nil {
			return nil, err
		}
	}
	port := portOf(distribution)
	r.Node = "millrace" + port + "@localhost"
	r.env = append(slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "RABBITMQ_") || strings.HasPrefix(pair, "ERL_")
	}),
		"HOME="+dir, "ERL_CRASH_DUMP="+filepath.Join(dir, "crash"), // of the cookie
		"ERL_EPMD_PORT="+portOf(on.mapper), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME="+r.Node, "RABBITMQ_DIST_PORT="+port,
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(dir, "log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(dir, "advanced.config"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
	)
	return r, nil
}

// configure writes the files that the server reads.
func (r *RabbitMQ) configure(conf, advanced []string) error {
	lines := append([]string{
		"listeners.tcp.default = " + r.AMQP, "log.console = false", "disk_free_limit.absolute = 50MB",
	}, conf...)
	for i, line := range lines {
		if line == "listeners.ssl.default = AMQPS" {
			lines[i] = "listeners.ssl.default = " + r.AMQPS
		}
	}
	for name, text := range map[string]string{
		"rabbitmq.conf":   strings.Join(lines, "\n") + "\n",
		"advanced.config": fmt.Sprintf("[{rabbit, [%s]}].\n", strings.Join(advanced, ", ")),
		"enabled_plugins": "[].\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// LowAddress is a free one of loopback, with a port below those that systems give to whoever
// connects: a server that is started again must find it free.
func LowAddress() (string, error) {
	for try := 0; ; try++ {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close()
		}
		if try == 100 {
			return "", err
		}
	}
}

// Start starts the server, and returns when it lets clients in. Returns what it said when it ends
// instead.
func (r *RabbitMQ) Start() error {
	r.said = new(tail)
	r.cmd = exec.Command("sh", "-c", r.script, filepath.Join(r.sbin, "rabbitmq-server"))
	r.cmd.Env, r.cmd.Dir = r.env, r.dir
	r.cmd.Stdout, r.cmd.Stderr = r.said, r.said
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	life, err := r.cmd.StdinPipe()
	if err == nil {
		r.life = life
		err = r.cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start rabbitmq-server: %w", err)
	}
	for until := time.Now().Add(2 * startWithin); ; time.Sleep(20 * time.Millisecond) {
		c, err := amqp.Dial(r.URL("/"))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(until) || r.ended() {
			return errors.Join(fmt.Errorf("rabbitmq-server does not answer (%w); it said: %s", err, r.said), r.Kill())
		}
	}
}

func (r *RabbitMQ) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// URL is that of a virtual host for a driver, with the user guest.
func (r *RabbitMQ) URL(vhost string) string {
	return "amqp://guest:guest@" + r.AMQP + "/" + strings.ReplaceAll(vhost, "/", "%2F")
}

// Ctl runs rabbitmqctl, and returns what it printed.
func (r *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.sbin, "rabbitmqctl"), append([]string{"--silent"}, args...)...)
	cmd.Env = r.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// AddVhost makes a virtual host that guest may use.
func (r *RabbitMQ) AddVhost(ctx context.Context, vhost string) error {
	if _, err := r.Ctl(ctx, "add_vhost", vhost); err != nil {
		return err
	}
	_, err := r.Ctl(ctx, "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	return err
}

// Stop asks the server to end, and returns when it has ended.
func (r *RabbitMQ) Stop() error {
	if r.cmd == nil {
		return nil
	}
	err := r.life.Close()
	_ = r.cmd.Wait() // the status of a shell says nothing
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	r.cmd = nil
	return err
}

// Pid is the id of the process that leads the group of all that the server is.
func (r *RabbitMQ) Pid() int { return r.cmd.Process.Pid }

// Kill ends the server as nothing else does, and returns when it has ended.
func (r *RabbitMQ) Kill() error {
	if r.cmd == nil {
		return nil
	}
	err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	_ = r.cmd.Wait()
	r.cmd = nil
	_ = r.life.Close() // Wait has closed it
	return err
}
