package door

import (
	"compress/flate"
	"crypto/tls"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

// handshakeTime is how long a client may take to agree on TLS.
const handshakeTime = 5 * time.Second

// upgrade changes what carries the connection, step by step, and tells the client each
// time in the new way. What the client sent before it was told is discarded: in the clear
// it could be anybody's, after an upgrade it would be read in the wrong way.
func (c *conn) upgrade(f *features) error {
	if f.TLSv1 {
		if err := c.upgradeTLS(); err != nil {
			return err
		}
	}
	if f.Snappy {
		if err := c.upgradeTo(c.snappy); err != nil {
			return err
		}
	}
	if f.Deflate {
		return c.upgradeTo(func() { c.deflate(f.DeflateLevel) })
	}
	return nil
}

// upgradeTo changes the connection, which the client was told in the old way.
func (c *conn) upgradeTo(change func()) error {
	if err := c.flush(); err != nil {
		return err
	}
	c.in.r, c.in.w = 0, 0
	change()
	c.respond(nsqwire.FrameResponse, nsqwire.OK)
	return c.flush()
}

func (c *conn) upgradeTLS() error {
	secure := tls.Server(&c.heartbeat, c.cfg.TLS)
	if err := c.flush(); err != nil {
		return err
	}
	// No heartbeat may get between the messages of the handshake.
	c.heartbeat.stopped = true
	_ = c.raw.SetDeadline(time.Now().Add(handshakeTime))
	if err := secure.HandshakeContext(c.ctx); err != nil {
		return err
	}
	return c.upgradeTo(func() {
		c.tls, c.transport, c.source, c.out.w = secure, secure, secure, secure
		c.out.setPatience(c.terms.heartbeat)
		c.heartbeat.start(c.terms.heartbeat)
		c.stats.mu.Lock()
		c.stats.tlsState = secure.ConnectionState()
		c.stats.mu.Unlock()
		c.stats.tls.Store(true)
	})
}

func (c *conn) snappy() {
	c.source = newSnappyReader(c.transport)
	c.out.w, c.out.compress = newSnappyWriter(c.transport), nil
	c.stats.snappy.Store(true)
}

func (c *conn) deflate(level int) {
	w, _ := flate.NewWriter(c.transport, level) // the level is one that was checked
	c.source = flate.NewReader(c.transport)
	c.out.w, c.out.compress = w, w
	c.stats.deflate.Store(true)
}
