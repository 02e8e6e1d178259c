//go:build !portable

package task

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for several file descriptors in one goroutine: it is an epoll instance
// that the Go runtime's own one watches. So a task needs no goroutine for each of its
// pipes, as files of package os would, and its replica blocks no thread.
type poller struct {
	file   *os.File // owns the epoll instance, and closes it when it is collected
	conn   syscall.RawConn
	fd     int
	events [4]unix.EpollEvent
	n      int   // how many of events are set
	err    error // of the last epoll_wait
	ready  func(uintptr) bool
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Only when it does not block does os.NewFile let the runtime watch it.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	p.ready = p.collect
	if p.conn, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

// close ends it. Nothing may be watched.
func (p *poller) close() { _ = p.file.Close() }

// add watches fd; what happens to it is reported under tag. It must be removed before
// it is closed: while a process that is being forked holds a copy of it, closing alone
// does not end the watch.
func (p *poller) add(fd int, events uint32, tag int32) error {
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: tag})
	return os.NewSyscallError("epoll_ctl", err)
}

// remove ends the watch of fd; it does nothing when there is none.
func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// wait waits until something is ready, and returns what. It returns an error that
// wraps os.ErrDeadlineExceeded at the deadline and after wake.
func (p *poller) wait() ([]unix.EpollEvent, error) {
	p.n, p.err = 0, nil
	if err := p.conn.Read(p.ready); err != nil {
		return nil, err
	}
	return p.events[:p.n], os.NewSyscallError("epoll_wait", p.err)
}

// collect is called by conn.Read when something may be ready, and says whether it was.
func (p *poller) collect(fd uintptr) bool {
	for {
		p.n, p.err = unix.EpollWait(int(fd), p.events[:], 0)
		if p.err != unix.EINTR { //nolint:errorlint // a plain errno
			return p.n != 0
		}
	}
}

// setDeadline makes wait return at that time; the zero time means never.
func (p *poller) setDeadline(at time.Time) { _ = p.file.SetReadDeadline(at) }

// wake makes wait return, now and until setDeadline is called. Any goroutine may call
// it.
func (p *poller) wake() { p.setDeadline(time.Unix(1, 0)) }
