package main

import (
	"context"
	"fmt"
)

// The contestants' names.
const (
	nsqdDefault = "nsqd"
	millrace2s  = "millrace --sync=2s"
	always      = "millrace --sync=always"
	okOnly      = "only answers OK"
	sendOnly    = "only sends"
	passOnly    = "only answers OK and sends"
	appendLoop  = "append and fdatasync"
)

// rows are what is measured. All have one channel on the topic unless they say otherwise.
func (s *setup) rows() []row {
	nsqd, lazy, safe := s.nsqdServer(), s.millraceServer("2s"), s.millraceServer("always")
	ok, prepared, passing := s.partServer("ok-server"), s.partServer("message-server"), s.partServer("passing-server")
	one := []string{"ch"}
	four := []string{"ch", "ch2", "ch3", "ch4"}
	return []row{
		{
			name: "publish, batches of 200, two connections (bench_writer)", unit: "/s",
			contestants: []*contestant{
				{name: nsqdDefault, once: s.publishing(nsqd, 200, one)},
				{name: millrace2s, once: s.publishing(lazy, 200, one)},
				{name: always, once: s.publishing(safe, 200, one)},
				{name: appendLoop, once: s.appending(200)},
				{name: okOnly, once: s.publishing(ok, 200, nil)},
			},
			bars: []bar{
				{of: millrace2s, over: nsqdDefault, ratio: 7},
				{of: always, over: nsqdDefault, ratio: 2},
				{of: always, over: appendLoop, ratio: 0.75},
			},
		},
		{
			name: "publish one by one, two connections (bench_writer)", unit: "/s",
			contestants: []*contestant{
				{name: nsqdDefault, once: s.publishing(nsqd, 1, one)},
				{name: millrace2s, once: s.publishing(lazy, 1, one)},
				{name: always, once: s.publishing(safe, 1, one)},
				{name: appendLoop, once: s.appending(1)},
				{name: okOnly, once: s.publishing(ok, 1, nil)},
			},
			bars: []bar{{of: millrace2s, over: nsqdDefault, ratio: 1.2}},
		},
		{
			name: "consume a backlog and finish, two connections (bench_reader)", unit: "/s",
			contestants: []*contestant{
				{name: nsqdDefault, once: s.consuming(nsqd, 600_000)},
				{name: millrace2s, once: s.consuming(lazy, 1_800_000)},
				{name: sendOnly, once: s.consuming(prepared, 0)},
			},
			bars: []bar{{of: millrace2s, over: nsqdDefault, ratio: 3}},
		},
		{
			name: "publish while a reader drains (bench_writer and bench_reader)", unit: "/s",
			contestants: []*contestant{
				{name: nsqdDefault, once: s.publishingAndConsuming(nsqd)},
				{name: millrace2s, once: s.publishingAndConsuming(lazy)},
				{name: always, once: s.publishingAndConsuming(safe)},
				{name: passOnly, once: s.publishingAndConsuming(passing)},
			},
			bars: []bar{
				{of: millrace2s, over: nsqdDefault, figure: "in", ratio: 4},
				{of: millrace2s, over: nsqdDefault, figure: "out", ratio: 4},
			},
		},
		{
			name: "publish to four channels (bench_writer)", unit: "/s",
			contestants: []*contestant{
				{name: millrace2s, once: s.publishing(lazy, 200, one)},
				{name: millrace2s + ", four", once: s.publishing(lazy, 200, four)},
				{name: nsqdDefault, once: s.publishing(nsqd, 200, one)},
				{name: nsqdDefault + ", four", once: s.publishing(nsqd, 200, four)},
			},
			bars: []bar{{of: millrace2s + ", four", over: millrace2s, ratio: 1 / 1.3}},
		},
		{
			name: "publish to a hundred topics, a hundred connections", unit: "/s",
			contestants: []*contestant{
				{name: always + ", one", once: s.publishingToTopics(safe, 1)},
				{name: always + ", 100", once: s.publishingToTopics(safe, 100)},
			},
			bars: []bar{{of: always + ", 100", over: always + ", one", ratio: 0.6}},
		},
		s.latencyRow(nsqd, lazy, safe, 5000, 0.2),
		s.latencyRow(nsqd, lazy, safe, 20000, 0.5),
	}
}

func (s *setup) latencyRow(nsqd, lazy, safe server, rate int, most float64) row {
	return row{
		name: fmt.Sprintf("from publish to delivery at %d a second (go-nsq, output_buffer_timeout 25 ms)", rate), unit: "ms",
		contestants: []*contestant{
			{name: nsqdDefault, once: s.latency(nsqd, rate)},
			{name: millrace2s, once: s.latency(lazy, rate)},
			{name: always, once: s.latency(safe, rate)},
		},
		bars: []bar{{of: millrace2s, over: nsqdDefault, figure: "p99", ratio: most, atMost: true}},
	}
}

// single is the only figure of a work.
func single(figure float64) map[string]float64 { return map[string]float64{"": figure} }

// publishing is bench_writer's work, against a topic with these channels.
func (s *setup) publishing(with server, batch int, channels []string) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		var rate float64
		err := s.against(ctx, with, channels, func(at *running) (err error) {
			rate, err = s.benchWriter(ctx, at, batch)
			return err
		})
		return single(rate), err
	}
}

// consuming is bench_reader's work, against a backlog that lasts for it at so many
// messages a second.
func (s *setup) consuming(with server, perSecond int) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		var rate float64
		backlog := int(float64(perSecond) * s.length.Seconds())
		err := s.against(ctx, with, []string{"ch"}, func(at *running) (err error) {
			if err := at.fill(backlog); err != nil {
				return err
			}
			if rate, err = s.benchReader(ctx, at); err != nil {
				return err
			}
			return at.notDry(backlog)
		})
		return single(rate), err
	}
}

func (s *setup) publishingAndConsuming(with server) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		var in, out float64
		err := s.against(ctx, with, []string{"ch"}, func(at *running) error {
			read := make(chan error, 1)
			go func() {
				var err error
				out, err = s.benchReader(ctx, at)
				read <- err
			}()
			var err error
			in, err = s.benchWriter(ctx, at, 200)
			if readErr := <-read; err == nil {
				err = readErr
			}
			return err
		})
		return map[string]float64{"in": in, "out": out}, err
	}
}

func (s *setup) latency(with server, rate int) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		var figures map[string]float64
		err := s.against(ctx, with, []string{"ch"}, func(at *running) (err error) {
			figures, err = s.part(ctx, "latency", at.tcp, fmt.Sprint(rate), s.length.String())
			return err
		})
		return figures, err
	}
}

func (s *setup) publishingToTopics(with server, topics int) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		var figures map[string]float64
		err := s.against(ctx, with, nil, func(at *running) (err error) {
			for i := range topics {
				if err := at.channel(fmt.Sprintf("t%d", i), "ch"); err != nil {
					return err
				}
			}
			figures, err = s.part(ctx, "topics", at.tcp, "100", fmt.Sprint(topics), s.length.String())
			return err
		})
		return figures, err
	}
}
