package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// listen opens a door's listener. An address that has no port is the path of a Unix
// socket; "" is a door that stays shut.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil //nolint:nilnil // no such door
	}
	network := "tcp"
	if _, _, err := net.SplitHostPort(address); err != nil {
		if !strings.Contains(address, "/") {
			return nil, flagError(flag, "%q is no address: write HOST:PORT, or :PORT for all networks of this machine, or the path of a socket with a / in it", address)
		}
		network = "unix"
		removeStale(ctx, address)
	}
	var config net.ListenConfig
	ln, err := config.Listen(ctx, network, address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, flagError(flag, "%s is in use: does another broker run, or nsqd?", address)
	case errors.Is(err, fs.ErrPermission):
		return nil, flagError(flag, "%s may not be listened on by this user", address)
	}
	return nil, flagError(flag, "cannot listen on %s: %s", address, sentence(err))
}

// removeStale removes the socket of a process that was killed.
func removeStale(ctx context.Context, path string) {
	if info, err := os.Stat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // it is in use: listening says so
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}

// port is what a door tells of where it listens: 0 for one that does not, -1 for a socket
// in the file system.
func port(ln net.Listener) int {
	if ln == nil {
		return 0
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return -1
}

// open says whether somebody from another machine can come to a door.
func open(ln net.Listener) bool {
	if ln == nil {
		return false
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	return ok && !addr.IP.IsLoopback()
}
