package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/peers/node"
)

// nsqjs installs NSQ's client for Node.js, and returns its folder.
func nsqjs(t *testing.T) string {
	t.Helper()
	modules, err := node.NPM(t.Context(), "testdata/nsqjs")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(modules, "nsqjs")
}

func TestNSQJS(t *testing.T) {
	cert, key, err := node.Certificate(t.TempDir(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	module := nsqjs(t)
	secure := func(o *node.Options) {
		o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequiredExceptHTTP
	}
	for _, how := range []struct {
		name    string
		change  func(*node.Options)
		options map[string]any
	}{
		{name: "plain", options: map[string]any{}},
		{name: "deflate", options: map[string]any{"deflate": true}},
		{name: "snappy", options: map[string]any{"snappy": true}},
		{name: "TLS", change: secure, options: map[string]any{"tls": true, "tlsVerification": false}},
	} {
		t.Run(how.name, func(t *testing.T) {
			onBoth(t, how.change, func(t *testing.T, n *node.Node) { nsqjsFlows(t, module, n, "", how.options) })
		})
	}
	t.Run("lookup", func(t *testing.T) {
		t.Parallel()
		n := start(t, node.Millrace, t.TempDir(), nil)
		nsqjsFlows(t, module, n, n.HTTP, map[string]any{})
	})
}

// nsqjsFlows runs the script and checks what came to it.
func nsqjsFlows(t *testing.T, module string, n *node.Node, lookupd string, options map[string]any) {
	t.Helper()
	const count = 200
	arg, err := json.Marshal(map[string]any{"tcp": n.TCP, "lookupd": lookupd, "topic": "t", "count": count, "options": options})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	script := exec.CommandContext(ctx, "node", "testdata/nsqjs/flow.js", string(arg))
	script.Env = append(os.Environ(), "NSQJS="+module)
	var complaints bytes.Buffer
	script.Stderr = &complaints
	out, err := script.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	var attempts map[string]int
	if err := json.Unmarshal(out, &attempts); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, prefix := range []string{"single", "batch"} {
		for i := range count {
			if body := fmt.Sprintf("%s%d", prefix, i); attempts[body] != 1 {
				t.Errorf("%s came with attempt %d", body, attempts[body])
			}
		}
	}
	if attempts["late"] != 1 || attempts["requeue"] != 3 || attempts["touch"] != 1 || attempts["ünï\x00"] != 1 {
		t.Errorf("attempts: %v", attempts)
	}
	wantDone(t, n, "t", "nsqjs")
}
