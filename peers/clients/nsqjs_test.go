package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/peers/node"
)

// nsqjs installs NSQ's client for Node.js as its lock file says, once for each version of
// that file, in the user's cache, and returns its folder.
func nsqjs(t *testing.T) string {
	t.Helper()
	const from = "testdata/nsqjs"
	lock, err := os.ReadFile(filepath.Join(from, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "millrace-peers", fmt.Sprintf("nsqjs-%x", sha256.Sum256(lock))[:22])
	installed := filepath.Join(dir, "node_modules", "nsqjs")
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	// In a folder beside, which takes its place when it is whole.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // it is gone when all went well
	manifest, err := os.ReadFile(filepath.Join(from, "package.json"))
	if err := errors.Join(err, os.WriteFile(filepath.Join(fresh, "package.json"), manifest, 0o600),
		os.WriteFile(filepath.Join(fresh, "package-lock.json"), lock, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	npm.Dir = fresh
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, gone := os.Stat(installed); gone != nil { // unless somebody else was first
			t.Fatal(err)
		}
	}
	return installed
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
