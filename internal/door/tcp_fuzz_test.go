package door

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
)

// fuzzSeeds are conversations that reach every command.
var fuzzSeeds = []string{
	magic + identify(`{"feature_negotiation":true,"sample_rate":5}`) + pub("t", "x") + "NOP\n",
	magic + mpub("t", "one", "two") + "DPUB t 1000\n" + sized("later") + pub("u", "x") + pub("u", "y"),
	magic + pub("t", "x") + "SUB t c\nRDY 5\nFIN 0000000000000001\nREQ 0000000000000002 0\nTOUCH 0000000000000003\nCLS\n",
	magic + "SUB t#ephemeral c#ephemeral\r\nRDY\r\nFIN 0000000000000001\nFIN 0000000000000001\n",
	magic + auth("secret") + pub("t", "x"),
	magic + identify(`{"feature_negotiation":true,"snappy":true}`),
	magic + identify(`{"feature_negotiation":true,"deflate":true,"deflate_level":3}`),
	magic + "MPUB t\n" + be32(100) + be32(3) + sized("a") + be32(-1),
	magic + "PUB t\n" + be32(-1), magic + "PUB t\n" + be32(1<<30), "  V1", "",
	magic + strings.Repeat("x", 17<<10),
}

// FuzzConversation says anything, in pieces of any size, to a door: it must answer in
// whole frames and end when the client does, with nothing left running.
func FuzzConversation(f *testing.F) {
	for i, seed := range fuzzSeeds {
		f.Add([]byte(seed), uint16(1+i*7)) //nolint:gosec // few
	}
	for i, seed := range fuzzSeeds[:8] { // and behind an upgrade
		f.Add([]byte(magic+identify(`{"feature_negotiation":true,"snappy":true}`)+seed), uint16(60+i)) //nolint:gosec // few
	}
	f.Fuzz(func(t *testing.T, input []byte, step uint16) {
		b, err := broker.Open(broker.Options{Logger: quiet(), MaxMemory: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		d := New(b, Config{Logger: quiet(), MaxBodySize: 64 << 10, MaxMsgSize: 32 << 10})
		mine, its := net.Pipe()
		c := d.newConn(t.Context(), its)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.serve()
		}()
		go func() {
			for len(input) > 0 {
				n := min(len(input), max(1, int(step)))
				if _, err := mine.Write(input[:n]); err != nil {
					break
				}
				input = input[n:]
			}
			_ = mine.SetReadDeadline(time.Now()) // what was answered was read meanwhile
		}()
		if err := wholeFrames(mine, c); err != nil {
			t.Error(err)
		}
		_ = mine.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the connection does not end")
		}
	})
}

// wholeFrames reads until the end, and checks that there are only whole frames, as far as
// they are not compressed.
func wholeFrames(from io.Reader, c *conn) error {
	r := &client{in: bufio.NewReader(from)}
	for {
		kind, data, err := r.raw()
		var timeout net.Error
		switch {
		case c.stats.snappy.Load(), c.stats.deflate.Load():
			_, _ = io.Copy(io.Discard, from)
			return nil
		case errors.Is(err, io.EOF), errors.As(err, &timeout):
			return nil
		case err != nil:
			return err
		case kind > 2:
			return errors.New("a frame of no type: " + string(data))
		}
	}
}
