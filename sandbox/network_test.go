package sandbox

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// Only fetch and push reach what the command line names; build has the policy
// of RUN steps, or no network at all.
func TestPolicyOfRoles(t *testing.T) {
	named, err := policy.ParseAllow("127.0.0.1:5000")
	if err != nil {
		t.Fatal(err)
	}
	here, web := netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("1.1.1.1:443")
	for _, c := range []struct {
		mode      policy.EgressMode
		role      request.Role
		here, web bool
		none      bool
	}{
		{policy.EgressDefault, request.RoleFetch, true, true, false},
		{policy.EgressDefault, request.RoleBuild, false, true, false},
		{policy.EgressDefault, request.RolePush, true, true, false},
		{policy.EgressAllowlist, request.RoleFetch, true, false, false},
		{policy.EgressAllowlist, request.RoleBuild, false, false, false},
		{policy.EgressNone, request.RoleFetch, true, false, false},
		{policy.EgressNone, request.RoleBuild, false, false, true},
		{policy.EgressNone, request.RolePush, true, false, false},
	} {
		n := Network{Run: policy.Egress{Mode: c.mode}, Named: named}
		e := n.egress(c.role)
		for to, want := range map[netip.AddrPort]bool{here: c.here, web: c.web} {
			if got := e.Judge(policy.Destination{Addr: to.Addr(), Port: to.Port()}); got.Allowed != want {
				t.Errorf("%v %s: %s: %+v", c.mode, c.role, to, got)
			}
		}
		if n.none(c.role) != c.none {
			t.Errorf("%v %s: no network: %v", c.mode, c.role, n.none(c.role))
		}
	}
}

// The password of a proxy reaches no sandbox that runs steps.
func TestProxyOfRoles(t *testing.T) {
	n := Network{Proxy: request.Proxy{HTTP: "http://u:secret@proxy:3128"}}
	if p := n.inside(request.RoleFetch).Proxy.HTTP; !strings.Contains(p, "secret") {
		t.Errorf("fetch: %q", p)
	}
	if p := n.inside(request.RoleBuild).Proxy.HTTP; p != "http://proxy:3128" {
		t.Errorf("build: %q", p)
	}
}

// A failure tells a few of the destinations that were denied, each once.
func TestDeniedHints(t *testing.T) {
	denied := func(name, addr string, port uint16, reason string) gateway.Record {
		r := gateway.Record{Protocol: "tcp", Name: name, Port: port, Verdict: gateway.Denied, Reason: reason}
		if addr == "" {
			r.Protocol = gateway.ProtocolDNS
		} else {
			r.Address = netip.MustParseAddr(addr)
		}
		return r
	}
	for _, c := range []struct {
		rec  gateway.Record
		want string
	}{
		{denied("", "127.0.0.1", 5000, "loopback"), "denied 127.0.0.1:5000 (loopback); --allow-net 127.0.0.1:5000 allows it"},
		{denied("", "fd00::1", 80, "unique local"), "denied [fd00::1]:80 (unique local); --allow-net [fd00::1]:80 allows it"},
		{denied("reg.corp", "10.0.0.1", 443, "private (RFC 1918)"), "denied 10.0.0.1:443, reg.corp (private (RFC 1918)); --allow-net reg.corp:443 allows it"},
		{denied("x", "127.0.0.1", 1, "loopback"), "denied 127.0.0.1:1, x (loopback); --allow-net 127.0.0.1:1 allows it"},
		{denied("", "10.0.0.1", 0, "private (RFC 1918)"), "denied 10.0.0.1 (private (RFC 1918)); --allow-net 10.0.0.1 allows it"},
		{denied("", "169.254.169.254", 80, "cloud metadata"), "denied 169.254.169.254:80 (cloud metadata)"},
		{denied("$(x)\x1b.example", "", 0, "no allow rule"), `denied the name "$(x)\x1b.example" (no allow rule)`},
		{denied("a;b", "10.0.0.1", 80, "private (RFC 1918)"), `denied 10.0.0.1:80, "a;b" (private (RFC 1918)); --allow-net 10.0.0.1:80 allows it`},
		{denied("a.example", "", 0, "taken out of the answer: private (RFC 1918)"), "denied the name a.example (taken out of the answer: private (RFC 1918)); --allow-net a.example allows it"},
		{denied("a.example", "", 0, "deny rule"), "denied the name a.example (deny rule)"},
	} {
		if got := deniedText(c.rec); got != "the egress policy "+c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	g := &gate{}
	for i := range 10 {
		g.record(denied("", "10.0.0.1", uint16(1+i/2), "private (RFC 1918)"))
	}
	f := request.Failure{Hint: "first"}
	g.explain(&f)
	if lines := strings.Split(f.Hint, "\n"); len(lines) != mostDenied+2 || lines[0] != "first" || !strings.Contains(lines[len(lines)-1], "others too") {
		t.Errorf("%q", f.Hint)
	}
}

// A connection that was denied is not told as refused by a server.
func TestDeniedIsTold(t *testing.T) {
	for msg, want := range map[string]string{
		"resolve x: connection refused by 10.0.0.1:80":             "resolve x: the egress policy denies 10.0.0.1:80",
		"ADD: dial tcp 10.0.0.1:80: connect: connection refused":   "ADD: dial tcp 10.0.0.1:80: the egress policy denies it",
		"resolve x: connection refused by 10.0.0.2:80":             "",
		"process \"wget 10.0.0.1\" did not complete: exit code: 1": "",
	} {
		g := &gate{}
		g.record(gateway.Record{Protocol: "tcp", Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Verdict: gateway.Denied, Reason: "private (RFC 1918)"})
		f := request.Failure{Message: msg, Hint: "is it running?"}
		g.explain(&f)
		if want == "" && (f.Message != msg || !strings.HasPrefix(f.Hint, "is it running?\n")) || want != "" && (f.Message != want || strings.Contains(f.Hint, "running")) {
			t.Errorf("%q: %q, hint %q", msg, f.Message, f.Hint)
		}
	}
}

// Records bear no more of a step's name than a line has, and no secret of it.
func TestStepNames(t *testing.T) {
	g := &gate{steps: map[int]string{}, gateway: new(gateway.Gateway)}
	g.net.Mask = func(text string) string { return strings.ReplaceAll(text, "hunter22", "***") }
	for i, c := range []struct{ name, want string }{
		{"RUN make", "RUN make"},
		{"RUN login hunter22", "RUN login ***"},
		// The secret would be cut in its middle.
		{strings.Repeat("a", 195) + "hunter22", strings.Repeat("a", 195) + "***"},
		{strings.Repeat("a", 200), strings.Repeat("a", 200)},
		{strings.Repeat("ä", 1<<19), strings.Repeat("ä", 98) + "..."},
		{strings.Repeat("\x80", 1000), "..."},
	} {
		g.note(request.Event{Kind: request.EventStart, Step: i, Name: c.name})
		if got := g.steps[i]; got != c.want || len(got) > mostStepName {
			t.Errorf("%.20q: %q", c.name, got)
		}
	}
}
