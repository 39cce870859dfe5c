package request

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestTargets(t *testing.T) {
	g := Gateway{Loopback4: "192.0.0.1", Loopback6: "fd00::1"}
	for address, want := range map[string]string{
		"127.0.0.1:5000":          "192.0.0.1:5000",
		"[::1]:5000":              "[fd00::1]:5000",
		"[::ffff:127.0.0.1]:5000": "192.0.0.1:5000",
		"localhost:5000":          "192.0.0.1:5000 [fd00::1]:5000",
		"LocalHost.:5000":         "192.0.0.1:5000 [fd00::1]:5000",
		"a.localhost:5000":        "192.0.0.1:5000 [fd00::1]:5000",
		"example.com:443":         "example.com:443",
		"10.0.0.1:443":            "10.0.0.1:443",
		"notlocalhost:80":         "notlocalhost:80",
		"nonsense":                "nonsense",
	} {
		got, err := g.Targets(address)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v, want %s", address, got, err, want)
		}
		if got, err := (Gateway{}).Targets(address); err != nil || !slices.Equal(got, []string{address}) {
			t.Errorf("%s without a gateway: %q, %v", address, got, err)
		}
	}
	if _, err := g.Targets("127.0.0.2:5000"); !errors.Is(err, ErrLoopback) || !strings.Contains(err.Error(), "127.0.0.2") {
		t.Errorf("127.0.0.2: %v", err)
	}
}

func TestDialError(t *testing.T) {
	refused := func() error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.0.1:5000")), Err: syscall.ECONNREFUSED}
	}
	for address, want := range map[string]string{
		"127.0.0.1:5000": "dial tcp 127.0.0.1:5000: connection refused",
		"localhost:5000": "dial tcp: connection refused",
		"192.0.0.1:5000": "dial tcp 192.0.0.1:5000: connection refused",
	} {
		err := DialError(refused(), address, []string{"192.0.0.1:5000"})
		if err.Error() != want || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
}

func TestWithoutPasswords(t *testing.T) {
	p := Proxy{HTTP: "http://user:p@ss@proxy:3128", HTTPS: "user:pass@proxy:3128", No: "a@b"}
	if got, want := p.WithoutPasswords(), (Proxy{HTTP: "http://proxy:3128", HTTPS: "proxy:3128", No: "a@b"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
