package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
)

// Millrace starts Millrace's broker with its doors.
func Millrace(dir string, change func(*Options)) (*Node, error) {
	opts := options(dir, change)
	var lc net.ListenConfig
	ctx, cancel := context.WithCancel(context.Background())
	tcp, err := lc.Listen(ctx, "tcp", opts.TCPAddress)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start millrace: %w", err)
	}
	web, err := lc.Listen(ctx, "tcp", opts.HTTPAddress)
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("start millrace: %w", err), tcp.Close())
	}
	n := &Node{Name: "millrace", TCP: tcp.Addr().String(), HTTP: web.Addr().String()}
	cfg, err := doorConfig(opts)
	if err != nil {
		cancel()
		return nil, errors.Join(err, tcp.Close(), web.Close())
	}
	cfg.TCPPort, cfg.HTTPPort = port(tcp), port(web)
	var secure net.Listener
	if cfg.TLS != nil {
		if secure, err = lc.Listen(ctx, "tcp", opts.HTTPSAddress); err != nil {
			cancel()
			return nil, errors.Join(fmt.Errorf("start millrace: %w", err), tcp.Close(), web.Close())
		}
		n.HTTPS, cfg.HTTPSPort = secure.Addr().String(), port(secure)
	}
	b, err := broker.Open(broker.Options{Dir: dir, Sync: opts.SyncTimeout, Logger: quiet()})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start millrace: %w", err)
	}
	d := door.New(b, cfg)
	var serving running
	serving.run(func() error { return d.ServeTCP(ctx, tcp) })
	serving.run(func() error { return d.ServeHTTP(ctx, web) })
	serving.run(func() error { return d.Serve(ctx) })
	if secure != nil {
		serving.run(func() error { return d.ServeHTTPS(ctx, secure) })
	}
	n.stop = func() error {
		cancel()
		return errors.Join(serving.wait(), b.Close())
	}
	return n, nil
}

func port(ln net.Listener) int {
	if addr, ok := ln.Addr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return -1
}

// doorConfig says to the doors what the options say to nsqd.
func doorConfig(opts *Options) (door.Config, error) {
	secure, err := serverTLS(opts)
	return door.Config{
		BroadcastAddress:       opts.BroadcastAddress,
		LookupdTCPAddresses:    opts.NSQLookupdTCPAddresses,
		MaxMsgSize:             int(opts.MaxMsgSize),
		MaxBodySize:            int(opts.MaxBodySize),
		MsgTimeout:             opts.MsgTimeout,
		MaxMsgTimeout:          opts.MaxMsgTimeout,
		MaxReqTimeout:          opts.MaxReqTimeout,
		MaxRdyCount:            int(opts.MaxRdyCount),
		MaxChannelConsumers:    opts.MaxChannelConsumers,
		ClientTimeout:          opts.ClientTimeout,
		MaxHeartbeatInterval:   opts.MaxHeartbeatInterval,
		MaxOutputBufferSize:    int(opts.MaxOutputBufferSize),
		MinOutputBufferTimeout: opts.MinOutputBufferTimeout,
		MaxOutputBufferTimeout: opts.MaxOutputBufferTimeout,
		OutputBufferTimeout:    opts.OutputBufferTimeout,
		NoDeflate:              !opts.DeflateEnabled,
		NoSnappy:               !opts.SnappyEnabled,
		MaxDeflateLevel:        opts.MaxDeflateLevel,
		TLS:                    secure,
		TLSRequired:            opts.TLSRequired != nsqd.TLSNotRequired,
		TLSExceptHTTP:          opts.TLSRequired == nsqd.TLSRequiredExceptHTTP,
		AuthHTTPAddresses:      opts.AuthHTTPAddresses,

		HTTPClientConnectTimeout: opts.HTTPClientConnectTimeout,
		HTTPClientRequestTimeout: opts.HTTPClientRequestTimeout,

		Logger: quiet(),
	}, err
}

// serverTLS is what nsqd makes of its --tls-… options.
func serverTLS(opts *Options) (*tls.Config, error) {
	if opts.TLSCert == "" {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	cert, err := tls.LoadX509KeyPair(opts.TLSCert, opts.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("start millrace: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	switch opts.TLSClientAuthPolicy {
	case "require":
		cfg.ClientAuth = tls.RequireAnyClientCert
	case "require-verify":
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if opts.TLSRootCAFile != "" {
		pem, err := os.ReadFile(opts.TLSRootCAFile)
		if err != nil {
			return nil, fmt.Errorf("start millrace: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("start millrace: no certificate in %s", opts.TLSRootCAFile)
		}
	}
	return cfg, nil
}
