package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
)

// stopWithin bounds how long serve takes to end when it is asked to: requests that have
// begun, and what is not on the disk yet.
const stopWithin = 20 * time.Second

// server is one run of serve.
type server struct {
	*serveOptions
	log    *slog.Logger
	level  *slog.LevelVar
	certs  *certificates
	tokens *door.Tokens
	broker *broker.Broker
	doors  *door.Door

	tcp, http, https net.Listener // nil: shut
}

// serve runs the broker until it is asked to end. Its error is one sentence.
func serve(ctx context.Context, o *serveOptions) error {
	s := &server{serveOptions: o, level: new(slog.LevelVar)}
	s.level.Set(slog.Level(o.logLevel))
	s.log = newLogger(os.Stderr, o.logPrefix, s.level)
	// Whoever reads the log may go away; the broker stays.
	signal.Ignore(syscall.SIGPIPE)
	raw, asked, over := make(chan os.Signal, 4), make(chan os.Signal, 4), make(chan struct{})
	signal.Notify(raw, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(raw)
	var requests sync.WaitGroup
	defer requests.Wait()
	defer close(over)
	requests.Go(func() { forwardRequests(raw, asked, over) })
	defer signal.Stop(asked)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(asked, syscall.SIGHUP)
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.conduct(ctx, asked)
}

// open reads what there is to read, opens the broker, and listens.
func (s *server) open(ctx context.Context) (err error) {
	if s.certs, err = loadCertificates(s.tls); err != nil {
		return err
	}
	if s.tokenFile != "" {
		if s.tokens, err = door.LoadTokens(s.tokenFile); err != nil {
			return fmt.Errorf("--auth-token-file: %w", err)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.shut())
		}
	}()
	if err = s.listen(ctx); err != nil {
		return err
	}
	s.serveOptions.broker.Logger = s.log
	if s.broker, err = broker.Open(s.serveOptions.broker); errors.Is(err, broker.ErrInUse) {
		return flagError("data-path", "%s is in use by another process: does another broker run?", s.serveOptions.broker.Dir)
	} else if err != nil {
		return flagError("data-path", "%w", err)
	}
	cfg := s.serveOptions.door
	cfg.TCPPort, cfg.HTTPPort, cfg.HTTPSPort = port(s.tcp), port(s.http), port(s.https)
	cfg.Logger, cfg.LogLevel, cfg.Tokens = s.log, s.level, s.tokens
	if s.certs != nil {
		cfg.TLS = s.certs.config()
	}
	if cfg.AuthTLS, err = s.tls.client(); err != nil {
		return err
	}
	s.doors = door.New(s.broker, cfg)
	s.greet()
	return nil
}

func (s *server) listen(ctx context.Context) (err error) {
	if s.tcp, err = listen(ctx, "tcp-address", s.tcpAddress); err != nil {
		return err
	}
	if s.http, err = listen(ctx, "http-address", s.httpAddress); err != nil {
		return err
	}
	if s.certs != nil {
		s.https, err = listen(ctx, "https-address", s.httpsAddress)
	}
	return err
}

// shut takes back what open has done.
func (s *server) shut() error {
	var errs []error
	for _, ln := range []net.Listener{s.tcp, s.http, s.https} {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Close())
	}
	return errors.Join(errs...)
}

// greet tells the log how the broker runs, and what the user should know of that.
func (s *server) greet() {
	s.log.Info("millrace", "version", version(), "data", s.serveOptions.broker.Dir, "sync", (*syncMode)(&s.serveOptions.broker.Sync).String())
	for _, note := range s.notes {
		s.log.Warn(note)
	}
	if _, err := os.Stat(filepath.Join(s.serveOptions.broker.Dir, "nsqd.dat")); err == nil {
		s.log.Warn("nsqd has left messages in the data directory, which are not read: let nsqd's consumers empty it first", "data", s.serveOptions.broker.Dir)
	}
	for _, d := range []struct {
		name    string
		ln      net.Listener
		authed  bool
		private bool
	}{
		{"tcp", s.tcp, s.tokens != nil || len(s.serveOptions.door.AuthHTTPAddresses) > 0, s.serveOptions.door.TLSRequired},
		{"http", s.http, s.tokens != nil, s.serveOptions.door.TLSRequired && !s.serveOptions.door.TLSExceptHTTP},
		{"https", s.https, s.tokens != nil, true},
	} {
		if d.ln == nil {
			continue
		}
		s.log.Info("listening", "door", d.name, "address", d.ln.Addr().String())
		known := d.authed || s.tls.policy == "require-verify" && d.private
		switch {
		case !open(d.ln) || known && d.private:
		case known:
			s.log.Warn("open to other machines without TLS: what is sent, tokens too, can be read on the way (--tls-required)", "door", d.name)
		default:
			s.log.Warn("open to other machines without a token: whoever reaches it can publish, consume and delete (--auth-token-file)", "door", d.name)
		}
	}
}

// conduct serves until a signal or an error ends it.
func (s *server) conduct(ctx context.Context, asked <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	done := ctx.Done()
	var tooLate <-chan time.Time
	for {
		select {
		case sig := <-asked:
			switch {
			case sig == syscall.SIGHUP:
				s.reload()
			case tooLate != nil:
				return errors.New("asked twice to end, and did not wait")
			default:
				s.log.Info("ending", "signal", sig.String())
				cancel()
			}
		case <-done:
			done = nil
			tooLate = time.After(stopWithin)
		case err := <-ended:
			if err == nil {
				s.log.Info("ended")
			}
			return err
		case <-tooLate:
			return fmt.Errorf("something has not ended within %v; what was acknowledged is in the data directory", stopWithin)
		}
	}
}

// run serves all doors until the context ends or one of them breaks, then closes the
// broker. It returns when everything has ended.
func (s *server) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serving sync.WaitGroup
	var errs [4]error
	for i, door := range []func(context.Context) error{s.serveTCP, s.serveHTTP, s.serveHTTPS, s.doors.Serve} {
		serving.Go(func() {
			if errs[i] = door(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	serving.Wait()
	return errors.Join(errors.Join(errs[:]...), s.broker.Close())
}

func (s *server) serveTCP(ctx context.Context) error {
	if s.tcp == nil {
		return nil
	}
	return s.doors.ServeTCP(ctx, s.tcp)
}

func (s *server) serveHTTP(ctx context.Context) error {
	if s.http == nil {
		return nil
	}
	return s.doors.ServeHTTP(ctx, s.http)
}

func (s *server) serveHTTPS(ctx context.Context) error {
	if s.https == nil {
		return nil
	}
	return s.doors.ServeHTTPS(ctx, s.https)
}

// reload reads again what may have changed. What cannot be read stays as it was.
func (s *server) reload() {
	var errs []error
	if s.certs != nil {
		errs = append(errs, s.certs.reload())
	}
	if s.tokens != nil {
		errs = append(errs, s.tokens.Reload())
	}
	level, err := s.readLevel()
	if err == nil {
		s.level.Set(slog.Level(level))
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		s.log.Error("not all could be read again", "error", err)
		return
	}
	s.log.Info("certificates, tokens and log level were read again")
}
