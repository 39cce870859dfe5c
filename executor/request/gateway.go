package request

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Gateway is what a sandbox knows of the gateway that it is behind. The zero
// value: there is none, but an ordinary network.
type Gateway struct {
	// Loopback4 and Loopback6 are addresses of the gateway that stand for 127.0.0.1
	// and ::1 of the host, port by port; empty: the loopback is this one's own.
	Loopback4 string `json:"loopback4,omitempty"`
	Loopback6 string `json:"loopback6,omitempty"`
	// Proxy is what the launcher's environment says of proxies.
	Proxy Proxy `json:"proxy,omitzero"`
}

// Proxy is as HTTP_PROXY, HTTPS_PROXY and NO_PROXY have it.
type Proxy struct {
	HTTP  string `json:"http,omitempty"`
	HTTPS string `json:"https,omitempty"`
	No    string `json:"no,omitempty"`
}

// WithoutPasswords is p without what authenticates to the proxies.
func (p Proxy) WithoutPasswords() Proxy {
	p.HTTP, p.HTTPS = withoutUser(p.HTTP), withoutUser(p.HTTPS)
	return p
}

// withoutUser cuts user:password@ out of what may be a URL or a bare host.
func withoutUser(proxy string) string {
	scheme, rest, found := strings.Cut(proxy, "://")
	if !found {
		scheme, rest = "", proxy
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if found {
		return scheme + "://" + rest
	}
	return rest
}

// ErrLoopback is wrapped by the error for an address of the host's loopback that
// nothing stands for.
var ErrLoopback = errors.New("of the host's loopback addresses only 127.0.0.1 and ::1 can be reached")

// Targets are the addresses, host:port, to dial in turn for one that a user
// wrote: the gateway's where the user means the host's loopback.
func (g Gateway) Targets(address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || g.Loopback4 == "" {
		return []string{address}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return []string{net.JoinHostPort(g.Loopback4, port), net.JoinHostPort(g.Loopback6, port)}, nil
	}
	addr, err := netip.ParseAddr(host)
	switch addr = addr.Unmap(); {
	case err != nil || !addr.IsLoopback():
		return []string{address}, nil
	case addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}):
		return []string{net.JoinHostPort(g.Loopback4, port)}, nil
	case addr == netip.IPv6Loopback():
		return []string{net.JoinHostPort(g.Loopback6, port)}, nil
	}
	return nil, fmt.Errorf("%s: %w", host, ErrLoopback)
}

// DialError makes an error about one of Targets one about what was asked for.
func DialError(err error, address string, targets []string) error {
	var op *net.OpError
	if len(targets) == 1 && targets[0] == address || !errors.As(err, &op) {
		return err
	}
	op.Addr = nil
	if asked, err := netip.ParseAddrPort(address); err == nil {
		op.Addr = net.TCPAddrFromAddrPort(asked)
	}
	return err
}
