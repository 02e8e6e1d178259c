package nats

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
)

const (
	// requestTimeout is how long one request may take before it is made again.
	requestTimeout = 5 * time.Second
	// A server that has said nothing for two of these is given up.
	pingEvery = 3 * time.Second
	// The pauses between two attempts, of whatever kind, grow from the first to the last.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// link is the connection to the servers, which is made again whenever it breaks.
type link struct {
	hosts string
	nc    *natsio.Conn
	js    jetstream.JetStream

	// renewed is called when there is a connection again. It must not wait.
	renewed func()

	mu      sync.Mutex    // guards all below
	up      bool          // there is a connection
	closed  bool          // and there will not be one again
	trouble error         // what went wrong last
	denial  denial        // what was not permitted last
	changed chan struct{} // closed when up or closed changes
	// session ends with the connection that there is: nobody gets an answer then to what
	// he asked before.
	session context.Context
	over    context.CancelCauseFunc
}

// dial connects, and makes sure that there is a JetStream.
func dial(ctx context.Context, t target, renewed func()) (*link, error) {
	l := &link{hosts: t.hosts, renewed: renewed, changed: make(chan struct{})}
	l.session, l.over = context.WithCancelCause(context.Background())
	d := &dialer{ctx: ctx}
	opts := append(t.options(),
		natsio.Name("millrace"),
		natsio.Timeout(requestTimeout),
		natsio.PingInterval(pingEvery),
		natsio.MaxReconnects(-1),
		natsio.CustomReconnectDelay(pause),
		natsio.IgnoreAuthErrorAbort(), // the password may be put right
		natsio.SetCustomDialer(d),
		natsio.ConnectHandler(func(*natsio.Conn) { l.set(true, nil) }),
		natsio.DisconnectErrHandler(l.broke),
		natsio.ReconnectErrHandler(func(_ *natsio.Conn, err error) { l.note(err) }),
		natsio.ReconnectHandler(l.mended),
		natsio.ClosedHandler(func(*natsio.Conn) { l.close() }),
		natsio.ErrorHandler(l.objected),
	)
	nc, err := natsio.Connect("", opts...)
	if err != nil {
		return nil, t.refusal(ctx, err, d.failure())
	}
	d.opened()
	l.nc = nc
	l.set(true, nil)
	if l.js, err = jetstream.New(nc); err == nil {
		err = l.once(ctx, l.session, func(ctx context.Context) error {
			_, err := l.js.AccountInfo(ctx)
			return err
		})
	}
	if err != nil {
		nc.Close()
		return nil, t.refusal(ctx, err, nil)
	}
	return l, nil
}

// refusal says in one sentence why there is no connection.
func (t *target) refusal(ctx context.Context, err, dialing error) error {
	who := "without a user"
	if t.user != "" {
		who = fmt.Sprintf("as user %q", t.user)
	} else if t.token != "" || t.creds != "" {
		who = "with these credentials"
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: %w", t.hosts, context.Cause(ctx))
	case errors.As(err, &unknown):
		return fmt.Errorf("%s has a certificate of an authority that nobody here trusts: name the authority's file with ca=FILE (%w)", t.hosts, err)
	case errors.Is(err, natsio.ErrAuthorization), errors.Is(err, natsio.ErrAuthExpired), errors.Is(err, natsio.ErrAuthRevoked):
		return fmt.Errorf("%s does not let us in %s: are user and password right, as in nats://user:password@host? (%w)", t.hosts, who, refusal{err})
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%s has no JetStream, which holds the messages: start nats-server with -js, and enable it for the account (%w)", t.hosts, err)
	case errors.Is(err, natsio.ErrPermissionViolation):
		return fmt.Errorf("%s does not let us use JetStream %s: permit $JS.>, _INBOX.> and millrace.> (%w)", t.hosts, who, refusal{err})
	case errors.Is(err, natsio.ErrSecureConnWanted):
		return fmt.Errorf("%s has no TLS, and the URL insists on it (%w)", t.hosts, err)
	case errors.Is(err, natsio.ErrTLS), strings.Contains(err.Error(), "remote error: tls"):
		return fmt.Errorf("%s does not like our side of TLS: does it want a certificate of ours, cert=FILE&key=FILE? (%w)", t.hosts, err)
	case errors.Is(err, natsio.ErrNoServers) && dialing != nil:
		return fmt.Errorf("no NATS server at %s: %w", t.hosts, dialing)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("JetStream at %s does not answer: has the cluster a leader? (%w)", t.hosts, err)
	}
	return fmt.Errorf("connect to %s: %w", t.hosts, err)
}

// pause is how long to wait before attempt n+1: longer each time, and never as long as
// somebody else.
func pause(n int) time.Duration {
	d := min(firstPause<<min(n, 10), lastPause)
	return d/2 + rand.N(d/2)
}

func (l *link) broke(_ *natsio.Conn, err error) {
	if !l.set(false, err) || err == nil { // nil when it was us
		return
	}
	slog.Warn("nats: the connection broke, and is made again", "servers", l.hosts, "error", err)
}

func (l *link) mended(*natsio.Conn) {
	l.set(true, nil)
	slog.Info("nats: connected again", "servers", l.hosts)
	l.renewed()
}

// denial is what the server did not permit, and when it said so.
type denial struct {
	err error
	at  time.Time
}

// objected is called with what the server objects to and does not answer, such as a
// request that is not permitted.
func (l *link) objected(_ *natsio.Conn, _ *natsio.Subscription, err error) {
	if errors.Is(err, natsio.ErrPermissionViolation) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.denial = denial{refusal{err}, time.Now()}
	}
}

// denied returns err, or if the server has not permitted something since then, which is
// why there was no answer, that.
func (l *link) denied(since time.Time, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.denial.err != nil && l.denial.at.After(since) {
		return l.denial.err
	}
	return err
}

// note keeps what went wrong, for whoever has to say what he waits for.
func (l *link) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
}

// set notes whether there is a connection, and returns whether that is new.
func (l *link) set(up bool, trouble error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = trouble
	if l.up == up || l.closed {
		return false
	}
	l.up = up
	if up {
		l.session, l.over = context.WithCancelCause(context.Background())
	} else {
		l.over(natsio.ErrDisconnected)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// close says that there will not be a connection again. Only the first call returns true.
func (l *link) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.up, l.closed = false, true
	l.over(millrace.ErrClosed)
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// state returns the session of the connection that there is, nil when there is none;
// changed is closed when that is no longer so.
func (l *link) state() (session context.Context, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, l.changed, millrace.ErrClosed
	case l.up:
		return l.session, l.changed, nil
	}
	return nil, l.changed, nil
}

func (l *link) isUp() bool {
	session, _, _ := l.state()
	return session != nil
}

// ready waits until there is a connection, and returns its session. Returns
// millrace.ErrClosed, or the context's cause with what was waited for.
func (l *link) ready(ctx context.Context) (session context.Context, err error) {
	for {
		session, changed, err := l.state()
		switch {
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, l.gaveUp(ctx, nil)
		case session != nil:
			return session, nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// gaveUp is the context's cause, with what was waited for while it ended.
func (l *link) gaveUp(ctx context.Context, last error) error {
	l.mu.Lock()
	up, trouble := l.up, l.trouble
	l.mu.Unlock()
	cause := context.Cause(ctx)
	switch {
	case !up && trouble != nil:
		return fmt.Errorf("waited for the connection to %s (%w): %w", l.hosts, trouble, cause)
	case !up:
		return fmt.Errorf("waited for the connection to %s: %w", l.hosts, cause)
	case last != nil:
		return fmt.Errorf("waited for %s (%w): %w", l.hosts, last, cause)
	}
	return cause
}

// call makes a request again until it is answered, or the context ends. The request must
// be safe to repeat.
func (l *link) call(ctx context.Context, request func(ctx context.Context) error) error {
	for n := 0; ; n++ {
		session, err := l.ready(ctx)
		if err != nil {
			return err
		}
		if err = l.once(ctx, session, request); err == nil || !passes(err) {
			return err
		}
		if err := l.sleep(ctx, n, err); err != nil {
			return err
		}
	}
}

// once makes a request, and waits for the answer for some time, and no longer than there
// is the connection on which it would come.
func (l *link) once(ctx, session context.Context, request func(ctx context.Context) error) error {
	attempt, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(session, cancel)()
	start := time.Now()
	err := l.denied(start, request(attempt))
	switch {
	case err != nil && session.Err() != nil:
		return context.Cause(session)
	case errors.Is(err, natsio.ErrConnectionClosed):
		return fmt.Errorf("%w (%w)", millrace.ErrClosed, err)
	}
	return err
}

// sleep waits before attempt n+1; last is why the one before has failed.
func (l *link) sleep(ctx context.Context, n int, last error) error {
	select {
	case <-ctx.Done():
		return l.gaveUp(ctx, last)
	case <-time.After(pause(n)):
		return nil
	}
}

// send publishes what needs no answer: acknowledgements and requests for messages. What
// fails here fails because there is no connection, and then a new one starts afresh.
func (l *link) send(subject, reply string, data []byte) {
	if reply == "" {
		_ = l.nc.Publish(subject, data)
		return
	}
	_ = l.nc.PublishRequest(subject, reply, data)
}

// flush waits for a moment until the server has read all that was sent. Returns whether
// it has.
func (l *link) flush() bool {
	return l.isUp() && l.nc.FlushTimeout(lastPause) == nil
}

// dialer makes connections under the context of Open as long as that runs, and remembers
// why it could not.
type dialer struct {
	mu   sync.Mutex // guards all below
	ctx  context.Context
	last error
	stop func() bool // what closes the connection when ctx ends
}

// Dial implements natsio.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	plain := net.Dialer{Timeout: requestTimeout}
	conn, err := plain.DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = err
	if err == nil {
		d.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	}
	return conn, err
}

// opened says that Open is over, and its context no longer counts.
func (d *dialer) opened() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx = context.Background()
	d.stop()
}

func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}
