package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// NPM installs what the package.json in a folder asks for, exactly as the
// package-lock.json beside it says, and returns the node_modules folder. It is installed in the
// user's cache, once for each version of the lock file; no package's scripts are run.
func NPM(ctx context.Context, folder string) (string, error) {
	lock, err := os.ReadFile(filepath.Join(folder, "package-lock.json")) //nolint:gosec // a test names it
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	home := filepath.Join(cache, "millrace-peers")
	dir := filepath.Join(home, fmt.Sprintf("node-%x", sha256.Sum256(lock))[:21])
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	// In a folder beside, which takes its place when it is whole.
	if err := os.MkdirAll(home, 0o750); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(home, "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(fresh) }()                          // it is gone when all went well
	manifest, err := os.ReadFile(filepath.Join(folder, "package.json")) //nolint:gosec // as above
	if err := errors.Join(err, os.WriteFile(filepath.Join(fresh, "package.json"), manifest, 0o600),
		os.WriteFile(filepath.Join(fresh, "package-lock.json"), lock, 0o600)); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	npm.Dir = fresh
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, gone := os.Stat(modules); gone != nil { // unless somebody else was first
			return "", err
		}
	}
	return modules, nil
}
