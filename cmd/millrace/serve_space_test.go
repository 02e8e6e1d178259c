package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRetentionAndTheLowWaterMarkAreSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	settings := fmt.Sprintf("data_path = %q\nretain = \"48h\"\ndisk_low_water = \"1GiB\"\n", dir)
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"millrace", "nsqd"} {
		s := serveProcess(t, program, "--config", config, "--disk-low-water=4611686018427387904")
		if _, got := s.get("/config/retain"); got != "172800000000000" {
			t.Errorf("%s: retain is %s", program, got)
		}
		// The command line counts more; no disk has as much free.
		if _, got := s.get("/config/disk_low_water"); got != "4611686018427387904" {
			t.Errorf("%s: disk_low_water is %s", program, got)
		}
		if err := s.publisher().Publish("t", []byte("x")); err == nil || !strings.Contains(err.Error(), "E_PUB_FAILED") || !strings.Contains(err.Error(), "--disk-low-water") {
			t.Errorf("%s: over TCP: %v", program, err)
		}
		if status, got := s.get("/ping"); status != 500 || !strings.HasPrefix(got, "NOK - ") || !strings.Contains(got, "--disk-low-water") {
			t.Errorf("%s: /ping: %d %s", program, status, got)
		}
		s.end(9)
	}
}
