package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// The contestants of the rows about tasks.
const (
	overMillrace  = "gather and worker"
	overMillrace2 = "the same, --sync=2s"
	bareNSQ       = "bare go-nsq"
	overRabbit    = "quorum and confirms"
	classicRPC    = "classic, no confirms"
	overNATS      = "JetStream"
)

// taskRows are what a task costs from the client over the broker to the worker and back, all
// of them processes of their own, with a handler in Go that returns what it gets. "tasks" are
// per second; "cpu" is what all processes spend on one, "bytes" what the client and the worker
// read and write for one.
func (s *setup) taskRows() []row {
	serve, lazy := s.taskMillrace("always"), s.taskMillrace("2s")
	return []row{
		{
			name: "tasks over millrace serve --sync=always", unit: "/s", units: taskUnits,
			contestants: []*contestant{
				{name: bareNSQ, once: s.tasks(serve, "echo-nsq", "ask-nsq")},
				{name: overMillrace, once: s.tasks(serve, "echo-tasks", "ask-tasks")},
				{name: overMillrace2, once: s.tasks(lazy, "echo-tasks", "ask-tasks")},
			},
			bars: []bar{
				{of: overMillrace, figure: "tasks", ratio: 50_000},
				{of: overMillrace, over: bareNSQ, figure: "tasks", ratio: 0.6},
			},
		},
		{
			name: "tasks over RabbitMQ", unit: "/s", units: taskUnits,
			contestants: []*contestant{
				{name: classicRPC, once: s.tasks(s.taskRabbitMQ, "echo-amqp", "ask-amqp")},
				{name: overRabbit, once: s.tasks(s.taskRabbitMQ, "echo-tasks", "ask-tasks")},
			},
			bars: []bar{{of: overRabbit, over: classicRPC, figure: "tasks", ratio: 0.4}},
		},
		{
			name: "tasks over NATS JetStream", unit: "/s", units: taskUnits,
			contestants: []*contestant{{name: overNATS, once: s.tasks(s.taskNATS, "echo-tasks", "ask-tasks")}},
			bars:        []bar{{of: overNATS, figure: "tasks", ratio: 20_000}},
		},
	}
}

var taskUnits = map[string]string{"cpu": "µs", "bytes": "B"}

// taskServer is a broker that runs in a process group of its own.
type taskServer struct {
	url, addr string // as Millrace and as bare clients are told it
	group     int
	stop      func() error
}

// tasks measures a client and a worker, parts of this program, on a broker.
func (s *setup) tasks(with func(ctx context.Context, dir string) (*taskServer, error), workerPart, clientPart string) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (figures map[string]float64, err error) {
		dir, err := os.MkdirTemp(s.dir, "data-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		at, err := with(ctx, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, at.stop()) }()
		where := at.url
		if workerPart == "echo-nsq" {
			where = at.addr
		}
		echo := exec.CommandContext(ctx, os.Args[0], workerPart, where)
		echo.Stderr = os.Stderr
		if err := echo.Start(); err != nil {
			return nil, err
		}
		defer func() {
			_ = echo.Process.Kill()
			_ = echo.Wait() // killed, as it says
		}()
		pid := strconv.Itoa(echo.Process.Pid)
		time.Sleep(500 * time.Millisecond) // until it is there
		before, wrote := groupCPU(at.group)+processCPU(pid), traffic(pid)
		figures, err = s.part(ctx, clientPart, where, s.length.String())
		if err != nil {
			return nil, err
		}
		// The client has left out its first answers, which hardly counts.
		n := figures["count"]
		figures["cpu"] += (groupCPU(at.group) + processCPU(pid) - before).Seconds() * 1e6 / n
		figures["bytes"] += float64(traffic(pid)-wrote) / n
		delete(figures, "count")
		return figures, nil
	}
}

func (s *setup) taskMillrace(sync string) func(context.Context, string) (*taskServer, error) {
	return func(_ context.Context, dir string) (*taskServer, error) {
		p, err := node.MillraceProcess(s.millrace, dir, "--sync="+sync, "--log-level=error")
		if err == nil {
			err = p.Start()
		}
		if err != nil {
			return nil, err
		}
		at := &running{tcp: p.TCP, http: p.HTTP}
		for _, topic := range []string{requestQueue, replyQueue} {
			err = errors.Join(err, at.channel(topic, "work"))
		}
		return &taskServer{url: "nsq://" + p.TCP + "?http=" + p.HTTP, addr: p.TCP, group: p.Pid(), stop: p.Kill}, err
	}
}

func (s *setup) taskRabbitMQ(_ context.Context, dir string) (*taskServer, error) {
	r, err := node.NewRabbitMQ(dir, nil)
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		return nil, err
	}
	return &taskServer{url: r.URL("/"), group: r.Pid(), stop: r.Kill}, nil
}

func (s *setup) taskNATS(ctx context.Context, dir string) (*taskServer, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "nats-server", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it says
		return nil
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nats-server: %w: %s", err, said.String()), stop())
	}
	return &taskServer{url: "nats://" + strings.TrimSpace(string(line[:n])), group: cmd.Process.Pid, stop: stop}, nil
}

// groupCPU is the time that the processes of a group have used, or the process alone when it
// leads none.
func groupCPU(group int) (sum time.Duration) {
	leader := strconv.Itoa(group)
	found := false
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		_, rest, ok := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); err == nil && ok && fields[2] == leader {
			found = true
			sum += processCPU(filepath.Base(filepath.Dir(path)))
		}
	}
	if !found {
		return processCPU(leader)
	}
	return sum
}

// processCPU is the time that a process has used; 0 when it has ended.
func processCPU(pid string) time.Duration {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return 0
	}
	used, err := cpu(n)
	if err != nil {
		return 0
	}
	return used
}
