package buildcontext

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// NewTransport carries requests to web servers as cfg says. It fails if the
// certificates cannot be read.
func NewTransport(cfg HTTPConfig) (*http.Transport, error) {
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
			return nil, errors.New("no CA certificate found in the given PEM")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return t, nil
}

// Patient reads what a server sends and gives up on one that has gone silent.
type Patient struct {
	r     io.Reader
	timer *time.Timer
	limit time.Duration
}

// NewPatient reads from r. When nothing has come for limit, giveUp is called
// with an error that says so; it has to make the read end. Stop must be called.
func NewPatient(r io.Reader, limit time.Duration, giveUp context.CancelCauseFunc) *Patient {
	return &Patient{r: r, limit: limit, timer: time.AfterFunc(limit, func() {
		giveUp(fmt.Errorf("nothing received for %v", limit))
	})}
}

// Stop ends the waiting.
func (p *Patient) Stop() { p.timer.Stop() }

func (p *Patient) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.timer.Reset(p.limit)
	}
	return n, err
}
