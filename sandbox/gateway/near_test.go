package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// TestNear: a name that the command line gives may be this host: then it leads
// to the gateway, and to the port that was named alone. Other names may not, and
// this one to nothing but the host.
func TestNear(t *testing.T) {
	server, other := echoServer(t, "127.0.0.1:0"), echoServer(t, "127.0.0.1:0")
	names := nameServer(t, map[string][]string{
		"registry.corp.example.": {"127.0.0.1", "169.254.169.254"}, "step.corp.example.": {"127.0.0.1"},
	})
	rules, err := policy.ParseAllow(fmt.Sprintf("registry:%d", server.Port()))
	must(t, err)
	rules[0].Near = true
	r := newRig(t, Config{
		Egress: policy.Egress{Mode: policy.EgressDefault, Allow: rules}, Resolvers: []netip.AddrPort{names},
		Search: ParseSearch([]byte("domain other.example\nsearch x.example Corp.Example.\n")),
	})
	if r.tryTCP(through(server)) == nil {
		t.Error("reached before the name was asked for")
	}
	for name, want := range map[string]string{"registry.corp.example.": GatewayIPv4.String(), "step.corp.example.": ""} {
		conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
		m, err := ask(conn, name, dnsmessage.TypeA)
		conn.Close()
		if got := strings.Join(addresses(m), " "); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
	must(t, r.tryTCP(through(server)))
	if r.tryTCP(through(other)) == nil {
		t.Error("reached another port")
	}
	for _, rec := range r.end(t) {
		if rec.Verdict == Allowed && rec.Protocol == protoTCP && (rec.Name != "registry.corp.example" || rec.Address != server.Addr()) {
			t.Errorf("%+v", rec)
		}
	}
}

func TestParseSearch(t *testing.T) {
	for conf, want := range map[string]string{
		"nameserver 1.1.1.1\n":                     "[]",
		"domain a.example\n":                       "[a.example]",
		"search a.example b.Example.\n":            "[a.example b.example]",
		"search a\nsearch b c\n":                   "[b c]",
		"search .\n":                               "[]",
		"search 1a 2a 3a 4a 5a 6a 7a\noptions x\n": "[1a 2a 3a 4a 5a 6a]",
	} {
		if got := fmt.Sprint(ParseSearch([]byte(conf))); got != want {
			t.Errorf("%q: %s, want %s", conf, got, want)
		}
	}
}
