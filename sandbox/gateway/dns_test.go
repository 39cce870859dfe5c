package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// addresses lists what an answer says.
func addresses(m dnsmessage.Message) (out []string) {
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.CNAMEResource:
			out = append(out, b.CNAME.String())
		}
	}
	return out
}

// TestNames asks the gateway over UDP and TCP, and IPv4 and IPv6.
func TestNames(t *testing.T) {
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("8.8.%d.8", i)
	}
	server := nameServer(t, map[string][]string{
		"good.example.":    {"1.1.1.1", "2606:4700::1"},
		"rebind.example.":  {"1.1.1.1", "169.254.169.254", "10.0.0.1", "::ffff:10.0.0.1", "fd00:ec2::254", "::1"},
		"inside.example.":  {"10.0.0.1"},
		"loop.example.":    {"127.0.0.1", "10.0.0.1"},
		"alias.example.":   {"good.example."},
		"to-evil.example.": {"evil.example."}, "evil.example.": {"1.1.1.1"},
		"to-inside.example.": {"inside.example."},
		"many.example.":      many,
	})
	e := allowing(t, "inside.example:443", "loop.example")
	deny, err := policy.ParseDeny("evil.example")
	must(t, err)
	e.Deny = deny
	r := newRig(t, Config{Egress: e, Resolvers: []netip.AddrPort{server}})
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
	}{
		{"good.example.", dnsmessage.TypeA, 0, "1.1.1.1"},
		{"GOOD.Example.", dnsmessage.TypeAAAA, 0, "2606:4700::1"},
		{"good.example.", dnsmessage.TypeHTTPS, 0, ""},
		{"rebind.example.", dnsmessage.TypeA, 0, "1.1.1.1"},
		{"rebind.example.", dnsmessage.TypeAAAA, 0, ""},
		{"inside.example.", dnsmessage.TypeA, 0, "10.0.0.1"},
		{"loop.example.", dnsmessage.TypeA, 0, "10.0.0.1"},
		{"alias.example.", dnsmessage.TypeA, 0, "good.example. 1.1.1.1"},
		{"to-inside.example.", dnsmessage.TypeA, 0, "inside.example."},
		{"evil.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"to-evil.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"nobody.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"good.example.", dnsmessage.TypeALL, dnsmessage.RCodeNotImplemented, ""},
	} {
		for _, own := range []netip.Addr{GatewayIPv4, GatewayIPv6} {
			conn := r.dialUDP(t, netip.AddrPortFrom(own, dnsPort))
			m, err := ask(conn, c.name, c.kind)
			conn.Close()
			if got := strings.Join(addresses(m), " "); err != nil || m.RCode != c.code || got != c.want || m.ID != 99 || !m.Response {
				t.Errorf("%s %v: %v %q, %v, want %v %q", c.name, c.kind, m.RCode, got, err, c.code, c.want)
			}
		}
	}
	t.Run("large", func(t *testing.T) { largeAnswer(t, r, many) })
	for _, rec := range r.end(t) {
		if rec.Protocol != ProtocolDNS || rec.Name == "" || rec.Type == "" || rec.Name != strings.ToLower(rec.Name) || rec.Out == 0 || rec.In == 0 {
			t.Errorf("record %+v", rec)
		}
		if rec.Name == "rebind.example" && !strings.Contains(rec.Reason, "taken out") {
			t.Errorf("record %+v", rec)
		}
	}
}

// largeAnswer: too large for UDP on either side, it comes over TCP.
func largeAnswer(t *testing.T, r *rig, want []string) {
	conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	defer conn.Close()
	m, err := ask(conn, "many.example.", dnsmessage.TypeA)
	if err != nil || !m.Truncated || len(m.Answers) > 0 {
		t.Errorf("over UDP: %v %v %d", err, m.Truncated, len(m.Answers))
	}
	tcp, err := r.dial(netip.AddrPortFrom(GatewayIPv4, dnsPort))
	must(t, err)
	defer tcp.Close()
	m, err = ask(framed{tcp}, "many.example.", dnsmessage.TypeA)
	if got := addresses(m); err != nil || !slices.Equal(got, want) {
		t.Errorf("over TCP: %v, %d addresses", err, len(got))
	}
}

// framed makes messages of a stream.
type framed struct {
	c interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}
}

func (f framed) Write(b []byte) (int, error) { return len(b), writeFrame(f.c, b) }

func (f framed) Read(b []byte) (int, error) {
	msg, err := readFrame(f.c, len(b))
	return copy(b, msg), err
}

// TestAllowByName: a name's address is reached on the name's port, after it
// was asked for, and no other name is asked for.
func TestAllowByName(t *testing.T) {
	server := nameServer(t, map[string][]string{"inside.example.": {"10.255.255.1"}, "other.example.": {"10.255.255.2"}})
	rules, err := policy.ParseAllow("inside.example:1")
	must(t, err)
	r := newRig(t, Config{
		Egress:    policy.Egress{Mode: policy.EgressAllowlist, Allow: rules},
		Resolvers: []netip.AddrPort{server}, Limits: Limits{Dial: 100 * time.Millisecond},
	})
	to := netip.MustParseAddr("10.255.255.1")
	try := func(port uint16) Record {
		t.Helper()
		before := r.Counters().Records
		// What the host's network makes of it does not matter here.
		if c, err := r.dial(netip.AddrPortFrom(to, port)); err == nil {
			c.Close()
		}
		for r.Counters().Records == before {
			time.Sleep(time.Millisecond)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.records[len(r.records)-1]
	}
	if rec := try(1); rec.Verdict != Denied {
		t.Errorf("before it was asked for: %+v", rec)
	}
	must(t, r.tryName(t, "inside.example.", 1))
	if rec := try(1); rec.Verdict == Denied || rec.Name != "inside.example" {
		t.Errorf("after it was asked for: %+v", rec)
	}
	if rec := try(2); rec.Verdict != Denied {
		t.Errorf("another port: %+v", rec)
	}
	conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	defer conn.Close()
	if m, err := ask(conn, "secret.exfil.example.", dnsmessage.TypeTXT); err != nil || m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("another name: %v, %v", m.RCode, err)
	}
}

// TestHosts: the host's table is answered from, and a loopback address in it is
// reached through the gateway's.
func TestHosts(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	table := ParseHosts([]byte("127.0.0.1 localhost\n127.0.0.1\tRegistry.Local reg # mine\n::1 ip6-localhost registry.local\n10.1.1.1 inside.local\n# 1.1.1.1 no\nx y\n10.2.2.2 secret.local\n"))
	if want := "map[inside.local:[10.1.1.1] reg:[127.0.0.1] registry.local:[127.0.0.1 ::1] secret.local:[10.2.2.2]]"; fmt.Sprint(table) != want {
		t.Errorf("%v, want %s", table, want)
	}
	r := newRig(t, Config{Egress: allowing(t, server.String(), "inside.local"), Hosts: table})
	for name, want := range map[string]string{
		"registry.local.": GatewayIPv4.String(), "reg.": GatewayIPv4.String(), "inside.local.": "10.1.1.1", "secret.local.": "",
	} {
		conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
		m, err := ask(conn, name, dnsmessage.TypeA)
		if got := strings.Join(addresses(m), " "); err != nil || m.RCode != 0 || got != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
	must(t, r.tryTCP(through(server)))
}

func TestNoResolver(t *testing.T) {
	r := newRig(t, Config{Egress: policy.RunEgress()})
	conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	m, err := ask(conn, "a.example.", dnsmessage.TypeA)
	if err != nil || m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%v, %v", m.RCode, err)
	}
	if recs := r.end(t); len(recs) != 1 || recs[0].Verdict != Failed || recs[0].Reason != errNoResolver.Error() {
		t.Errorf("records %+v", recs)
	}
}

// TestForeignRecords: what an answer holds beside the question's name is not
// passed on, nor is an answer to another question.
func TestForeignRecords(t *testing.T) {
	n := dnsmessage.MustNewName
	q := question{q: dnsmessage.Question{Name: n("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
	record := func(name string, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: n(name), Class: dnsmessage.ClassINET, TTL: 1 << 30}, Body: body}
	}
	one := &dnsmessage.AResource{A: [4]byte{1, 1, 1, 1}}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q.q},
		Answers:     []dnsmessage.Resource{record("victim.example.", one), record("b.example.", one), record("a.example.", &dnsmessage.CNAMEResource{CNAME: n("b.example.")})},
		Authorities: []dnsmessage.Resource{record("example.", &dnsmessage.NSResource{NS: n("evil.example.")})},
		Additionals: []dnsmessage.Resource{record("a.example.", one)},
	}
	all := filter{address: func(netip.Addr) string { return "" }, alias: func(string) string { return "" }}
	b, err := m.Pack()
	must(t, err)
	a, err := parseAnswer(b, 7, q, all)
	if err != nil || len(a.answers) != 2 || len(a.authorities) != 0 || len(a.addresses) != 1 || a.answers[0].Header.TTL != maxTTL {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := parseAnswer(b, 8, q, all); err == nil {
		t.Error("an answer with another number was taken")
	}
	q.q.Name = n("c.example.")
	if _, err := parseAnswer(b, 7, q, all); err == nil {
		t.Error("an answer to another question was taken")
	}
}

func TestParseResolvers(t *testing.T) {
	for _, c := range []struct{ conf, want string }{
		{"", "[127.0.0.1:53]"},
		{"nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", "[127.0.0.53:53]"},
		{"# nameserver 1.1.1.1\n;nameserver 1.1.1.1\n\tnameserver\t8.8.8.8 # mine\nnameserver\nnameserver x\n", "[8.8.8.8:53]"},
		{"nameserver ::1\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n", "[[::1]:53 [fe80::1%eth0]:53 1.1.1.1:53]"},
	} {
		if got := fmt.Sprint(ParseResolvers([]byte(c.conf))); got != c.want {
			t.Errorf("%q: %s, want %s", c.conf, got, c.want)
		}
	}
	conf := SandboxResolvConf([]byte("nameserver 10.0.0.1\nsearch corp.example\noptions ndots:5 rotate\n"))
	if want := "search corp.example\noptions ndots:5\nnameserver 192.0.0.1\n"; string(conf) != want {
		t.Errorf("%q, want %q", conf, want)
	}
}

func TestNamesMemory(t *testing.T) {
	n := names{byAddr: map[netip.Addr][]named{}}
	now := time.Now()
	a := netip.MustParseAddr("1.1.1.1")
	for i := range 20 {
		n.remember(a, fmt.Sprintf("n%d", i), time.Second, now)
	}
	n.remember(a, "n15", 24*time.Hour, now)
	if got := n.of(a, now.Add(4*time.Minute)); len(got) != mostNamesOfOne || got[0] != "n15" || got[1] != "n19" {
		t.Errorf("after four minutes: %q", got)
	}
	if got := n.of(a, now.Add(50*time.Minute)); len(got) != 1 {
		t.Errorf("after fifty minutes: %q", got)
	}
	if got := n.of(a, now.Add(2*time.Hour)); len(got) != 0 {
		t.Errorf("after two hours: %q", got)
	}
	for i := range 3 * mostAddresses {
		n.remember(netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)}), "x", time.Minute, now)
	}
	if len(n.byAddr) > mostAddresses {
		t.Errorf("%d addresses", len(n.byAddr))
	}
}
