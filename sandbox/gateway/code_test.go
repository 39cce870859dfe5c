package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// TestCodes: a name that is denied does not exist, however it is denied: no
// resolver tries that again. What was answered is in the record.
func TestCodes(t *testing.T) {
	server := nameServer(t, map[string][]string{
		"good.example.": {"1.1.1.1"}, "inside.example.": {"10.0.0.1"},
		"to-evil.example.": {"evil.example."}, "evil.example.": {"1.1.1.1"},
	})
	e := policy.RunEgress()
	deny, err := policy.ParseDeny("evil.example")
	must(t, err)
	e.Deny = deny
	cases := []struct {
		name    string
		kind    dnsmessage.Type
		code    string
		verdict Verdict
	}{
		{"good.example.", dnsmessage.TypeA, "NOERROR", Allowed},
		{"nobody.example.", dnsmessage.TypeA, "NXDOMAIN", Allowed},
		{"evil.example.", dnsmessage.TypeA, "NXDOMAIN", Denied},
		{"to-evil.example.", dnsmessage.TypeA, "NXDOMAIN", Denied},
		{"b\xc3\xbccher.example.", dnsmessage.TypeA, "NXDOMAIN", Denied},
		{"inside.example.", dnsmessage.TypeA, "NOERROR", Denied},
		{"good.example.", dnsmessage.TypeALL, "NOTIMP", Denied},
	}
	r := newRig(t, Config{Egress: e, Resolvers: []netip.AddrPort{server}})
	conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	defer conn.Close()
	for _, c := range cases {
		m, err := ask(conn, c.name, c.kind)
		if err != nil || len(m.Authorities) > 0 {
			t.Errorf("%s: %+v, %v", c.name, m, err)
		}
	}
	recs := r.end(t)
	if len(recs) != len(cases) {
		t.Fatalf("records %+v", recs)
	}
	for i, c := range cases {
		if rec := recs[i]; rec.Code != c.code || rec.Verdict != c.verdict {
			t.Errorf("%s: record %+v, want %s, %s", c.name, rec, c.code, c.verdict)
		}
	}
}

// TestDeniedInTable: addresses of the host's table that are denied are told as
// those of name servers, by the type that was asked for.
func TestDeniedInTable(t *testing.T) {
	table := ParseHosts([]byte("10.2.2.2 secret.local mixed.local\n2606:4700::1 mixed.local\n"))
	cases := []struct {
		name    string
		kind    dnsmessage.Type
		want    string
		verdict Verdict
		reason  string // its end
	}{
		{"secret.local.", dnsmessage.TypeA, "", Denied, "taken out of the answer: private (RFC 1918)"},
		{"secret.local.", dnsmessage.TypeAAAA, "", Allowed, ", by the host's table"},
		{"mixed.local.", dnsmessage.TypeA, "", Denied, "taken out of the answer: private (RFC 1918)"},
		{"mixed.local.", dnsmessage.TypeAAAA, "2606:4700::1", Allowed, ", by the host's table"},
	}
	r := newRig(t, Config{Egress: policy.RunEgress(), Hosts: table})
	conn := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	defer conn.Close()
	for _, c := range cases {
		m, err := ask(conn, c.name, c.kind)
		if got := strings.Join(addresses(m), " "); err != nil || m.RCode != 0 || got != c.want {
			t.Errorf("%s %v: %q %v, %v", c.name, c.kind, got, m.RCode, err)
		}
	}
	recs := r.end(t)
	if len(recs) != len(cases) {
		t.Fatalf("records %+v", recs)
	}
	for i, c := range cases {
		if rec := recs[i]; rec.Verdict != c.verdict || !strings.HasSuffix(rec.Reason, c.reason) {
			t.Errorf("%s %v: record %+v, want %s, %s", c.name, c.kind, rec, c.verdict, c.reason)
		}
	}
}
