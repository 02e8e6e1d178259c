package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// tlsFiles say where the certificate is, and what is wanted of clients.
type tlsFiles struct {
	cert, key, ca string
	policy        string // of nsqd: "", "require" or "require-verify"
	minVersion    tlsVersion
}

// certificates are those of the doors. They can be read again while doors are open:
// connections that begin afterwards get the new ones.
type certificates struct {
	files tlsFiles
	now   atomic.Pointer[tls.Config]
}

// loadCertificates reads the certificates; nil when there are none.
func loadCertificates(files tlsFiles) (*certificates, error) {
	if files.cert == "" {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	c := &certificates{files: files}
	return c, c.reload()
}

// reload reads them again. When it cannot, they stay as they were.
func (c *certificates) reload() error {
	pair, err := tls.LoadX509KeyPair(c.files.cert, c.files.key)
	switch {
	case errors.As(err, new(*os.PathError)):
		return fmt.Errorf("the certificate cannot be read: %w", err)
	case err != nil:
		return fmt.Errorf("the certificate of %s and %s cannot be used: %w", c.files.cert, c.files.key, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: uint16(c.files.minVersion)}
	switch c.files.policy {
	case "require":
		cfg.ClientAuth = tls.RequireAnyClientCert
	case "require-verify":
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if cfg.ClientCAs, err = c.files.authorities(); err != nil {
		return err
	}
	c.now.Store(cfg)
	return nil
}

// config is for the doors: whoever connects gets the certificates of the time.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         uint16(c.files.minVersion),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil },
	}
}

// authorities are those of the file; nil, the system's, without one.
func (t tlsFiles) authorities() (*x509.CertPool, error) {
	if t.ca == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, fmt.Errorf("the certificate authorities cannot be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", t.ca)
	}
	return pool, nil
}

// client is for connections to servers, as nsqd has it: those that the file's authorities
// have signed.
func (t tlsFiles) client() (*tls.Config, error) {
	pool, err := t.authorities()
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: uint16(t.minVersion)}, nil
}

// tlsVersion is the value of --tls-min-version; 0 is what package tls thinks right.
type tlsVersion uint16

var tlsVersions = map[string]uint16{
	"tls1.0": tls.VersionTLS10, "tls1.1": tls.VersionTLS11, "tls1.2": tls.VersionTLS12, "tls1.3": tls.VersionTLS13,
}

func (v *tlsVersion) String() string {
	for name, version := range tlsVersions {
		if version == uint16(*v) {
			return name
		}
	}
	return ""
}

func (v *tlsVersion) Type() string { return "version" }

// Get is what /config tells.
func (v *tlsVersion) Get() any { return uint16(*v) }

func (v *tlsVersion) Set(text string) error {
	version, ok := tlsVersions[strings.ToLower(text)]
	if !ok && text != "" {
		return fmt.Errorf("write tls1.0, tls1.1, tls1.2 or tls1.3")
	}
	*v = tlsVersion(version)
	return nil
}
