package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// build makes the programs.
func (s *setup) build(ctx context.Context) (err error) {
	for name, path := range map[string]*string{"nsqd": &s.nsqd, "bench_writer": &s.writer, "bench_reader": &s.reader} {
		if *path, err = node.Tool(ctx, name); err != nil {
			return err
		}
	}
	s.millrace, err = node.BuildMillrace(ctx, s.dir)
	return err
}

// server starts a server with its data in dir.
type server func(ctx context.Context, dir string) (*running, error)

// running is a server that runs.
type running struct {
	tcp, http string // http is "" for the ceilings
	stop      func() error
}

func (s *setup) nsqdServer() server {
	return func(_ context.Context, dir string) (*running, error) {
		p, err := node.NSQDProcess(s.nsqd, dir, "--log-level=error")
		return start(p, err)
	}
}

func (s *setup) millraceServer(sync string) server {
	return func(_ context.Context, dir string) (*running, error) {
		p, err := node.MillraceProcess(s.millrace, dir, "--sync="+sync, "--log-level=error")
		return start(p, err)
	}
}

func start(p *node.Process, err error) (*running, error) {
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		return nil, err
	}
	return &running{tcp: p.TCP, http: p.HTTP, stop: p.Kill}, nil
}

// partServer is a part of this program that prints its address when it listens.
func (s *setup) partServer(part string) server {
	return func(ctx context.Context, _ string) (*running, error) {
		cmd := exec.CommandContext(ctx, os.Args[0], part)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		line := make([]byte, 64)
		n, err := out.Read(line)
		stop := func() error {
			err := cmd.Process.Kill()
			_ = cmd.Wait() // killed, as it says
			return err
		}
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		return &running{tcp: strings.TrimSpace(string(line[:n])), stop: stop}, nil
	}
}

// topic is the topic of all loads but that of many topics.
const topic = "sub_bench"

// against starts the server on a fresh directory, makes the channels, and does the work.
func (s *setup) against(ctx context.Context, with server, channels []string, work func(*running) error) error {
	dir, err := os.MkdirTemp(s.dir, "data-")
	if err != nil {
		return err
	}
	at, err := with(ctx, dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if at.http != "" {
		for _, ch := range channels {
			if err == nil {
				err = at.channel(topic, ch)
			}
		}
	}
	if err == nil {
		err = work(at)
	}
	return errors.Join(err, at.stop(), os.RemoveAll(dir))
}

// channel makes a channel, and its topic if need be.
func (at *running) channel(topic, channel string) error {
	for _, path := range []string{"/topic/create?topic=" + topic, "/channel/create?topic=" + topic + "&channel=" + channel} {
		if err := at.post(path); err != nil {
			return err
		}
	}
	return nil
}

func (at *running) post(path string) error { return at.postBody(path, "") }

func (at *running) postBody(path, body string) error {
	resp, err := http.Post("http://"+at.http+path, "", strings.NewReader(body))
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s", path, resp.Status)
	}
	return nil
}

// errDry is returned when a measurement was over before its time, because there was
// nothing left to do.
var errDry = errors.New("the backlog did not last: the figure would be too low")

// notDry fails unless some of the backlog is left.
func (at *running) notDry(backlog int) error {
	if backlog == 0 {
		return nil
	}
	left, err := at.depth()
	if err == nil && left == 0 {
		err = errDry
	}
	return err
}

// depth is what waits in the first channel of the topic.
func (at *running) depth() (int, error) {
	resp, err := http.Get("http://" + at.http + "/stats?format=json&include_clients=0&include_mem=0&topic=" + topic)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Topics []struct {
			Channels []struct {
				Depth int `json:"depth"`
			} `json:"channels"`
		} `json:"topics"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if len(answer.Topics) == 0 || len(answer.Topics[0].Channels) == 0 {
		return 0, errors.New("the topic has no channel")
	}
	return answer.Topics[0].Channels[0].Depth, nil
}

func (s *setup) benchWriter(ctx context.Context, at *running, batch int) (float64, error) {
	return opsPerSecond(ctx, s.writer, "-runfor="+s.length.String(), "-nsqd-tcp-address="+at.tcp, "-topic="+topic, "-size=200", "-batch-size="+strconv.Itoa(batch))
}

func (s *setup) benchReader(ctx context.Context, at *running) (float64, error) {
	return opsPerSecond(ctx, s.reader, "-runfor="+s.length.String(), "-nsqd-tcp-address="+at.tcp, "-topic="+topic, "-channel=ch", "-size=200")
}

var ops = regexp.MustCompile(`([0-9.]+)ops/s`)

// opsPerSecond runs one of NSQ's bench programs and returns the rate that it prints.
func opsPerSecond(ctx context.Context, path string, args ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", path, err, out)
	}
	found := ops.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("%s says no rate: %s", path, out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// part runs a part of this program, which prints its figures as JSON.
func (s *setup) part(ctx context.Context, args ...string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", args[0], err, said.String())
	}
	var figures map[string]float64
	err = json.Unmarshal(out, &figures)
	return figures, err
}
