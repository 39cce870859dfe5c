package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// network holds the connections to all registries: one http.Transport for each
// kind of TLS verification, made when it is first needed.
type network struct {
	cfg   Config
	roots func() (*x509.CertPool, error) // nil: the system's
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)

	mu   sync.Mutex
	made map[tlsKind]*http.Transport
}

// tlsKind tells how certificates are verified.
type tlsKind struct {
	skip bool   // not at all
	host string // also by the certificate given for this host; empty: none is given
}

func newNetwork(cfg Config) (*network, error) {
	n := &network{cfg: cfg, made: map[tlsKind]*http.Transport{}}
	n.dial = n.connect
	if first, _ := pem.Decode(cfg.Roots); first == nil && cfg.Roots != nil {
		return nil, errNoRoots
	}
	n.roots = sync.OnceValues(func() (*x509.CertPool, error) { return parseRoots(cfg.Roots) })
	for _, h := range slices.Sorted(maps.Keys(cfg.Registry.Certificates)) {
		if !x509.NewCertPool().AppendCertsFromPEM(cfg.Registry.Certificates[h]) {
			return nil, &Error{Class: request.ClassResolve,
				Msg:  fmt.Sprintf("registry certificate of %s: no PEM certificate in it", clean(h)),
				Hint: "--registry-certificate " + clean(h) + "=/path/to/ca.pem"}
		}
	}
	return n, nil
}

var errNoRoots = errors.New("no CA certificate in the trusted roots")

// parseRoots reads certificates; nil: the system's. There are many: whoever meets no TLS
// need not wait for them.
func parseRoots(pem []byte) (*x509.CertPool, error) {
	if pem == nil {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errNoRoots
	}
	return pool, nil
}

// connect dials a registry or a proxy; what a user means by this machine's
// loopback is the gateway's. Errors name the address that was asked for.
func (n *network) connect(ctx context.Context, network, address string) (conn net.Conn, err error) {
	targets, err := n.cfg.Gateway.Targets(address)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
		if conn, err = d.DialContext(ctx, network, t); err == nil {
			return conn, nil
		}
	}
	return nil, request.DialError(err, address, targets)
}

// plain says whether a registry may be reached by plain HTTP. TLS is tried
// first in any case.
func (n *network) plain(host string, scope request.Scope) bool {
	r := n.cfg.Registry
	return loopback(host) || slices.Contains(r.InsecureHosts, host) ||
		scope == request.Push && r.Insecure || scope == request.Pull && r.InsecurePull
}

func (n *network) kind(host string, scope request.Scope) tlsKind {
	r := n.cfg.Registry
	host = strings.ToLower(host)
	k := tlsKind{skip: slices.Contains(r.SkipTLSHosts, host) ||
		scope == request.Push && r.SkipTLS || scope == request.Pull && r.SkipTLSPull}
	if _, ok := r.Certificates[host]; ok && !k.skip {
		k.host = host
	}
	return k
}

func (n *network) transport(k tlsKind) (*http.Transport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t, ok := n.made[k]; ok {
		return t, nil
	}
	roots, err := n.pool(k.host)
	if err != nil {
		return nil, err
	}
	// HTTP/1.1 only: parallel blobs get a connection each, so that a stalled
	// or broken one does not hold up the others, and it is faster.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Proxy:                  n.cfg.Proxy,
		Protocols:              &protocols,
		DialContext:            n.dial,
		TLSHandshakeTimeout:    dialTimeout,
		TLSClientConfig:        &tls.Config{RootCAs: roots, InsecureSkipVerify: k.skip, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost:    2 * transfers,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		// A blob must arrive as it is stored, so nothing is asked to be
		// compressed on the way.
		DisableCompression: true,
		WriteBufferSize:    copySize,
		ReadBufferSize:     64 << 10,
	}
	n.made[k] = t
	return t, nil
}

// pool returns the trusted roots, with the certificate given for host.
func (n *network) pool(host string) (*x509.CertPool, error) {
	roots, err := n.roots()
	if host == "" || err != nil {
		return roots, err
	}
	if roots == nil {
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
	}
	roots = roots.Clone()
	roots.AppendCertsFromPEM(n.cfg.Registry.Certificates[host])
	return roots, nil
}

// wire sends the requests of one session. It lies below the part that adds
// credentials.
type wire struct {
	net   *network
	scope request.Scope
	// plain allows plain HTTP to any host: the registry is reached by it.
	plain bool
}

// RoundTrip implements http.RoundTripper.
func (w wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !w.plain && !loopback(req.URL.Host) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, &plainError{host: req.URL.Host}
	}
	t, err := w.net.transport(w.net.kind(req.URL.Host, w.scope))
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	if req.GetBody != nil {
		req.Body.Close()
		if out.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	out.Header.Set("User-Agent", w.net.cfg.UserAgent)
	resp, err := t.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	if d, ok := req.Context().Value(delayKey{}).(*atomic.Int64); ok {
		d.Store(int64(retryAfter(resp.Header.Get("Retry-After"))))
	}
	return resp, nil
}

// delayKey is the context key of what a registry said with Retry-After.
type delayKey struct{}

// retryAfter reads the header of that name, which counts seconds or is a date;
// 0 if it is neither.
func retryAfter(v string) time.Duration {
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// checkRedirect follows a redirect of a pull or an API call unless it leads
// from outside into a private network.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("stopped after 10 redirects")
	}
	return checkHop(via[0].URL.Host, req.URL.Host)
}

// checkHop refuses an address of this machine or of a private network named by
// a registry that is not in one itself: the registry would have us fetch from, or
// send to, something that it cannot reach. The gateway judges what names
// resolve to. Link-local addresses, where clouds keep their metadata, are
// refused to those within too.
func checkHop(from, to string) error {
	ip := net.ParseIP(hostname(to))
	local := ip != nil && ip.IsLinkLocalUnicast()
	if hostname(from) == hostname(to) || !inside(to) || inside(from) && !local {
		return nil
	}
	return fmt.Errorf("%s redirects to %s, an address of a private network: refused", clean(from), clean(to))
}

// inside says whether host is an address of this machine or of a private
// network, in any form that a dialer may take for one.
func inside(host string) bool {
	if loopback(host) {
		return true
	}
	h, _, _ := strings.Cut(hostname(host), "%")
	if ip := net.ParseIP(h); ip != nil {
		return ip.IsPrivate() || ip.IsLoopback() || ip.IsUnspecified() ||
			ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast()
	}
	// A last label that begins with a digit is no name but one of the old
	// forms of an address: 127.1, 0x7f000001, 2130706433.
	last := h[strings.LastIndexByte(h, '.')+1:]
	return last != "" && last[0] >= '0' && last[0] <= '9'
}

// loopback says whether host, with or without a port, is this machine.
func loopback(host string) bool {
	h := hostname(host)
	if h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return true
	}
	ip := net.ParseIP(h)
	return ip != nil && ip.IsLoopback()
}

// hostname is host without its port and brackets, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
