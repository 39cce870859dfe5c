package buildcontext

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	dialTimeout    = 30 * time.Second
	tlsTimeout     = 30 * time.Second
	headerTimeout  = 2 * time.Minute
	maxHeaderBytes = 1 << 20
)

// Dial connects to a server; what a user means by this machine's loopback is
// the gateway's. Every connection of this room and the ones below begins here.
// Errors name the address that was asked for.
func (c HTTPConfig) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	targets, err := c.Gateway.Targets(address)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		d := net.Dialer{Timeout: dialTimeout}
		if conn, err = d.DialContext(ctx, network, t); err == nil {
			return conn, nil
		}
	}
	return nil, request.DialError(err, address, targets)
}

var errNoCertificate = errors.New("no CA certificate found in the given PEM")

// NewTransport carries requests to web servers as cfg says. It fails if the
// certificates are no PEM, and parses them at the first request: there are many, and
// most builds make none.
func NewTransport(cfg HTTPConfig) (http.RoundTripper, error) {
	if first, _ := pem.Decode(cfg.Roots); first == nil && len(cfg.Roots) > 0 {
		return nil, errNoCertificate
	}
	return lazyTransport{sync.OnceValues(func() (*http.Transport, error) { return newTransport(cfg) })}, nil
}

type lazyTransport struct {
	made func() (*http.Transport, error)
}

func (l lazyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t, err := l.made()
	if err != nil {
		if r.Body != nil {
			r.Body.Close() // as http.RoundTripper promises
		}
		return nil, err
	}
	return t.RoundTrip(r)
}

func newTransport(cfg HTTPConfig) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                  cfg.Proxy,
		DialContext:            cfg.Dial,
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        time.Minute,
	}
	if len(cfg.Roots) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(cfg.Roots) {
			return nil, errNoCertificate
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return t, nil
}

// Pace is the least that a server has to send, so that one which drips cannot
// hold up a build for ever: PaceBytes in PaceTimes as long as it may be silent,
// which is 64 KiB in ten minutes usually. A git server may well be busy for
// minutes before it sends more than signs of life.
const (
	PaceBytes = 64 << 10
	PaceTimes = 5
)

// Patient reads what a server sends and gives up on one that has gone silent, or
// does not keep pace.
type Patient struct {
	r             io.Reader
	silence, pace *time.Timer
	limit         time.Duration
	got           int // since the pace was last measured
}

// NewPatient reads from r. When nothing has come for limit, or less than the
// pace, giveUp is called with an error that says so; it has to make the read end.
// Stop must be called.
func NewPatient(r io.Reader, limit time.Duration, giveUp context.CancelCauseFunc) *Patient {
	p := &Patient{r: r, limit: limit}
	p.silence = time.AfterFunc(limit, func() { giveUp(Silent(limit)) })
	p.pace = time.AfterFunc(PaceTimes*limit, func() { giveUp(Slow(limit)) })
	return p
}

// Silent is the error about a server from which nothing came for limit, Slow
// that about one that did not keep pace.
func Silent(limit time.Duration) error { return fmt.Errorf("nothing received for %v", limit) }

func Slow(limit time.Duration) error {
	return fmt.Errorf("less than %d KiB received in %v", PaceBytes>>10, PaceTimes*limit)
}

// Stop ends the waiting.
func (p *Patient) Stop() {
	p.silence.Stop()
	p.pace.Stop()
}

func (p *Patient) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.silence.Reset(p.limit)
	}
	if p.got += n; p.got >= PaceBytes {
		p.got = 0
		p.pace.Reset(PaceTimes * p.limit)
	}
	return n, err
}
