package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certificate writes a certificate for 127.0.0.1, which has signed itself, and its key.
func certificate(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// serial is the serial number of the certificate that a door shows.
func serial(t *testing.T, address string) int64 {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it is looked at
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestSIGHUPReadsCertificatesTokensAndLogLevelAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir, 1)
	tokens := fileWith(t, "tokens", "old ops admin:*\n")
	config := fileWith(t, "cfg", `log_level = "info"`)
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tls-cert", cert, "--tls-key", key,
		"--auth-token-file", tokens, "--config", config)
	s.awaitLog("door=https")
	https := s.address("https")
	if got := serial(t, https); got != 1 {
		t.Fatalf("certificate %d", got)
	}
	certificate(t, dir, 2)
	rewrite(t, tokens, "new ops admin:*\n")
	rewrite(t, config, `log_level = "debug"`)
	hangUp(t, s)
	s.awaitLog("were read again")
	if got := serial(t, https); got != 2 {
		t.Errorf("certificate %d after SIGHUP", got)
	}
	for token, want := range map[string]int{"old": http.StatusUnauthorized, "new": http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.http+"/config/log_level", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want || want == http.StatusOK && body.String() != "1" {
			t.Errorf("the %s token: %d %s", token, resp.StatusCode, body.String())
		}
	}

	// What cannot be read stays as it was.
	rewrite(t, cert, "no certificate")
	hangUp(t, s)
	s.awaitLog("not all could be read again")
	if got := serial(t, https); got != 2 {
		t.Errorf("certificate %d after one that is broken", got)
	}
	if status := s.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func rewrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hangUp(t *testing.T, s *served) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// Who wants certificates of clients wants TLS of them, as nsqd has it.
func TestAPolicyForClientsRequiresTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, t.TempDir(), 1)
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tls-cert", cert, "--tls-key", key, "--tls-client-auth-policy=require")
	if status, body := s.get("/ping"); status != http.StatusForbidden || !strings.Contains(body, "TLS_REQUIRED") {
		t.Errorf("over plain HTTP: %d %s", status, body)
	}
	s = serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tls-cert", cert, "--tls-key", key, "--tls-required=tcp-https")
	if status, body := s.get("/ping"); status != http.StatusOK {
		t.Errorf("over plain HTTP with tcp-https: %d %s", status, body)
	}
	if exit, stderr := pub(t, s, "a\n", "t"); exit == 0 {
		t.Errorf("over plain TCP: %s", stderr)
	}
}

// pub and sub go through TLS, and trust the authority that they are told.
func TestPubAndSubThroughTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, t.TempDir(), 1)
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tls-cert", cert, "--tls-key", key, "--tls-required")
	plain := millraceCommand(t, "pub", "t", "--broker", "nsq://"+s.tcp)
	plain.Stdin = strings.NewReader("a\n")
	if out, err := plain.CombinedOutput(); err == nil {
		t.Errorf("without TLS: %s", out)
	}
	url := "nsq://" + s.tcp + "?tls=true"
	untrusting := millraceCommand(t, "pub", "t", "--broker", url)
	untrusting.Stdin = strings.NewReader("a\n")
	if out, err := untrusting.CombinedOutput(); err == nil || !strings.Contains(string(out), "certificate") {
		t.Errorf("with an authority that nobody knows: %v %s", err, out)
	}
	url += "&ca=" + cert
	pub := millraceCommand(t, "pub", "t", "--broker", url)
	pub.Stdin = strings.NewReader("a\n")
	if out, err := pub.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := millraceCommand(t, "sub", "t", "-n", "1", "--broker", url).CombinedOutput(); err != nil || string(out) != "a\n" {
		t.Errorf("%v %s", err, out)
	}
}
