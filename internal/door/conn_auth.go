package door

import (
	"context"
	"encoding/json"
	"net"

	"github.com/millrace/millrace/internal/nsqwire"
)

// authRequired says whether clients must authenticate.
func (d *Door) authRequired() bool {
	return d.cfg.Tokens != nil || len(d.cfg.AuthHTTPAddresses) > 0
}

// auth is AUTH: the client shows its secret.
func (c *conn) auth(cmd nsqwire.Command) error {
	if c.stats.state.Load() != stateInit {
		return refusal(nsqwire.Invalid, "cannot AUTH in current state")
	}
	if cmd.Count != 0 {
		return refusal(nsqwire.Invalid, "AUTH invalid number of parameters")
	}
	secret, err := c.smallBody("AUTH")
	if err != nil {
		return err
	}
	if c.authority.permits() > 0 {
		return refusal(nsqwire.Invalid, "AUTH already set")
	}
	if !c.door.authRequired() {
		return refusal(nsqwire.AuthDisabled, "AUTH disabled")
	}
	c.secret = string(secret)
	if err := c.authenticate(); err != nil {
		return c.authFailed(err)
	}
	if c.authority.permits() == 0 {
		return refusal(nsqwire.Unauthorized, "AUTH no authorizations found")
	}
	told, err := json.Marshal(struct {
		Identity        string `json:"identity"`
		IdentityURL     string `json:"identity_url"`
		PermissionCount int    `json:"permission_count"`
	}{c.authority.Identity, c.authority.IdentityURL, c.authority.permits()})
	if err != nil {
		return c.authFailed(err)
	}
	c.respond(nsqwire.FrameResponse, string(told))
	return nil
}

// authFailed logs why, of which the client is told nothing.
func (c *conn) authFailed(err error) error {
	c.cfg.Logger.Warn("AUTH failed", "client", c.raw.RemoteAddr(), "error", err)
	return refusal(nsqwire.AuthFailed, "AUTH failed")
}

// authenticate finds out what the client's secret allows.
func (c *conn) authenticate() error {
	who := credentials{secret: c.secret, tls: c.tls != nil}
	if addr := c.raw.RemoteAddr(); addr.Network() == "tcp" {
		who.remoteIP, _, _ = net.SplitHostPort(addr.String())
	}
	if c.tls != nil {
		if certs := c.tls.ConnectionState().PeerCertificates; len(certs) > 0 {
			who.commonName = certs[0].Subject.CommonName
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.HTTPClientRequestTimeout)
	defer cancel()
	a, err := c.door.authenticate(ctx, who)
	if err != nil {
		return err
	}
	c.authority = a
	c.stats.mu.Lock()
	c.stats.authority = a
	c.stats.mu.Unlock()
	return nil
}

// mayPublish returns an error for the client if it may not publish to the topic.
func (c *conn) mayPublish(verb, topic string) error { return c.mayDo(verb, Publish, topic, "") }

// mayDo returns an error for the client if it may not do that.
func (c *conn) mayDo(verb string, action Action, topic, channel string) error {
	if !c.door.authRequired() {
		return nil
	}
	if c.authority.permits() == 0 {
		return refusal(nsqwire.AuthFirst, "AUTH required before %s", verb)
	}
	if c.authority.expired() {
		if err := c.authenticate(); err != nil {
			return c.authFailed(err)
		}
	}
	if !c.authority.allows(action, topic, channel) {
		return refusal(nsqwire.Unauthorized, "AUTH failed for %s on %q %q", verb, topic, channel)
	}
	return nil
}
