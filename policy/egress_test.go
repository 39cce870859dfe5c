package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestRangesGolden pins the reserved ranges: one that goes is seen in a diff.
func TestRangesGolden(t *testing.T) {
	var b strings.Builder
	for _, r := range ReservedRanges() {
		if r.Prefix != r.Prefix.Masked() {
			t.Errorf("%s has bits behind its prefix", r.Prefix)
		}
		fmt.Fprintf(&b, "%-20s private=%-5v %s\n", r.Prefix, r.Private, r.For)
	}
	golden(t, "ranges", b.String())
}

// TestDefaultEgress judges addresses under the policy of RUN steps.
func TestDefaultEgress(t *testing.T) {
	for _, c := range []struct {
		addr string
		want string // "": allowed
	}{
		{"1.1.1.1", ""}, {"8.8.8.8", ""}, {"100.63.255.255", ""}, {"100.128.0.0", ""}, {"172.15.255.255", ""},
		{"172.32.0.0", ""}, {"192.167.255.255", ""}, {"223.255.255.255", ""}, {"11.0.0.0", ""}, {"168.63.129.17", ""},
		{"0.0.0.0", "this network"}, {"0.1.2.3", "this network"},
		{"10.0.0.0", "private (RFC 1918)"}, {"10.255.255.255", "private (RFC 1918)"},
		{"172.16.0.1", "private (RFC 1918)"}, {"172.31.255.255", "private (RFC 1918)"}, {"192.168.1.1", "private (RFC 1918)"},
		{"100.64.0.1", "shared by a carrier (RFC 6598)"}, {"100.100.100.200", "cloud metadata (Alibaba)"},
		{"127.0.0.1", "loopback"}, {"127.255.255.254", "loopback"}, {"127.0.0.53", "loopback"},
		{"169.254.1.1", "link-local"}, {"169.254.169.254", "cloud metadata"},
		{"169.254.170.2", "cloud credentials (AWS containers)"}, {"168.63.129.16", "cloud metadata (Azure)"},
		{"192.0.0.192", "cloud metadata (Oracle)"}, {"192.0.0.1", "protocol assignments, the link itself among them"},
		{"192.0.2.1", "documentation"}, {"198.51.100.1", "documentation"}, {"203.0.113.1", "documentation"},
		{"198.18.0.1", "benchmarks"}, {"198.19.255.255", "benchmarks"},
		{"224.0.0.1", "multicast"}, {"239.255.255.250", "multicast"}, {"240.0.0.1", "reserved"}, {"255.255.255.255", "broadcast"},

		{"2606:4700:4700::1111", ""}, {"2a00:1450::1", ""}, {"2001:4860:4860::8888", ""}, {"2001:200::1", ""},
		{"::", "unspecified"}, {"::1", "loopback"}, {"::7f00:1", "IPv4-compatible"}, {"::a00:1", "IPv4-compatible"},
		{"::ffff:127.0.0.1", "IPv4-mapped"}, {"::ffff:10.0.0.1", "IPv4-mapped"}, {"::ffff:8.8.8.8", "IPv4-mapped"},
		{"::ffff:0:169.254.169.254", "IPv4-translated"},
		{"64:ff9b::8.8.8.8", ""}, {"64:ff9b::10.0.0.1", "private (RFC 1918)"}, {"64:ff9b::a9fe:a9fe", "cloud metadata"},
		{"64:ff9b::7f00:1", "loopback"}, {"64:ff9b:1::8.8.8.8", "NAT64 of a local network"},
		{"64:ff9b::1:a9fe:a9fe", "not global unicast"},
		{"2002:a9fe:a9fe::1", "6to4"}, {"2002:808:808::1", "6to4"}, {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "protocol assignments, Teredo among them"},
		{"fc00::1", "unique local"}, {"fdff::1", "unique local"}, {"fd00:ec2::254", "cloud metadata (AWS)"},
		{"fd20:ce::254", "cloud metadata (Google)"}, {"fe80::1", "link-local"}, {"fe80::1%eth0", "link-local"},
		{"fec0::1", "site-local, withdrawn"}, {"ff02::1", "multicast"}, {"ff0e::1", "multicast"},
		{"100::1", "discarded"}, {"2001:db8::1", "documentation"}, {"3fff::1", "documentation"},
		{"4000::1", "not global unicast"}, {"fe00::1", "not global unicast"}, {"5f00::1", "not global unicast"},
	} {
		got := RunEgress().Judge(Destination{Addr: netip.MustParseAddr(c.addr), Port: 443})
		if got.Allowed != (c.want == "") || !got.Allowed && got.Reason != c.want {
			t.Errorf("%s: %+v, want %q", c.addr, got, c.want)
		}
	}
}

// TestPrecedence has the order of the rules as a table.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		name        string
		mode        EgressMode
		allow, deny string // rules with spaces between
		to          string
		names       string
		own         bool
		want        string // the reason; allowed if it starts with +
	}{
		{name: "zero value", to: "8.8.8.8:53", want: "no network"},
		{name: "none ignores rules", allow: "8.8.8.8", to: "8.8.8.8:53", want: "no network"},
		{name: "default", mode: EgressDefault, to: "8.8.8.8:53", want: "+internet"},
		{name: "allowlist", mode: EgressAllowlist, to: "8.8.8.8:53", want: "no allow rule"},
		{name: "allowed address", mode: EgressAllowlist, allow: "8.8.8.8", to: "8.8.8.8:53", want: "+allow rule"},
		{name: "allowed port", mode: EgressAllowlist, allow: "8.8.8.8:53", to: "8.8.8.8:53", want: "+allow rule"},
		{name: "another port", mode: EgressAllowlist, allow: "8.8.8.8:53", to: "8.8.8.8:54", want: "no allow rule"},
		{name: "port not known yet", mode: EgressAllowlist, allow: "8.8.8.8:53", to: "8.8.8.8:0", want: "+allow rule"},
		{name: "deny beats allow", mode: EgressDefault, allow: "8.8.8.8", deny: "8.8.0.0/16", to: "8.8.8.8:53", want: "deny rule"},
		{name: "deny beats a name", mode: EgressDefault, allow: "a.example", names: "a.example", deny: "8.8.0.0/16", to: "8.8.8.8:53", want: "deny rule"},
		{name: "deny of a port", mode: EgressDefault, deny: "0.0.0.0/0:25", to: "8.8.8.8:25", want: "deny rule"},
		{name: "deny of another port", mode: EgressDefault, deny: "0.0.0.0/0:25", to: "8.8.8.8:26", want: "+internet"},
		{name: "deny of a port, port not known yet", mode: EgressDefault, deny: "0.0.0.0/0:25", to: "8.8.8.8:0", want: "+internet"},
		{name: "everything opens no reserved range", mode: EgressDefault, allow: "0.0.0.0/0 ::/0", to: "10.0.0.1:80", want: "private (RFC 1918)"},
		{name: "everything opens no loopback", mode: EgressAllowlist, allow: "0.0.0.0/0", to: "127.0.0.1:80", want: "loopback"},
		{name: "everything on the allowlist", mode: EgressAllowlist, allow: "0.0.0.0/0", to: "8.8.8.8:53", want: "+allow rule"},
		{name: "a range opened whole", mode: EgressDefault, allow: "10.0.0.0/8", to: "10.1.2.3:80", want: "+allow rule"},
		{name: "a part of a range", mode: EgressDefault, allow: "10.1.0.0/16", to: "10.1.2.3:80", want: "+allow rule"},
		{name: "beside the part", mode: EgressDefault, allow: "10.1.0.0/16", to: "10.2.2.3:80", want: "private (RFC 1918)"},
		{name: "wider than the range", mode: EgressDefault, allow: "172.0.0.0/8", to: "172.16.0.1:80", want: "private (RFC 1918)"},
		{name: "link-local opened, metadata not", mode: EgressDefault, allow: "169.254.0.0/16", to: "169.254.169.254:80", want: "cloud metadata"},
		{name: "metadata by name of address", mode: EgressDefault, allow: "169.254.169.254", to: "169.254.169.254:80", want: "+allow rule"},
		{name: "loopback, one port", mode: EgressDefault, allow: "127.0.0.1:5000", to: "127.0.0.1:5000", want: "+allow rule"},
		{name: "loopback, another port", mode: EgressDefault, allow: "127.0.0.1:5000", to: "127.0.0.1:22", want: "loopback"},
		{name: "localhost", mode: EgressDefault, allow: "localhost:5000", to: "[::1]:5000", want: "+allow rule"},
		{name: "unique local is inside what is not global", mode: EgressDefault, allow: "fd00::/8", to: "[fd00::5]:1", want: "+allow rule"},
		{name: "NAT64 denied by the inner rule", mode: EgressDefault, deny: "8.8.8.8", to: "[64:ff9b::808:808]:1", want: "deny rule"},
		{name: "NAT64 allowed by the inner rule", mode: EgressAllowlist, allow: "8.8.8.8", to: "[64:ff9b::808:808]:1", want: "+allow rule"},
		{name: "NAT64 of an opened address", mode: EgressDefault, allow: "10.0.0.0/8", to: "[64:ff9b::a00:1]:1", want: "+allow rule"},
		{name: "NAT64's range opens nothing inside", mode: EgressDefault, allow: "64:ff9b::/96", to: "[64:ff9b::a00:1]:1", want: "private (RFC 1918)"},

		{name: "name", mode: EgressAllowlist, allow: "a.example:443", names: "a.example", to: "8.8.8.8:443", want: "+allow rule"},
		{name: "name, another port", mode: EgressAllowlist, allow: "a.example:443", names: "a.example", to: "8.8.8.8:80", want: "no allow rule"},
		{name: "another name", mode: EgressAllowlist, allow: "a.example", names: "b.example", to: "8.8.8.8:80", want: "no allow rule"},
		{name: "name below", mode: EgressAllowlist, allow: "*.example", names: "a.b.example", to: "8.8.8.8:80", want: "+allow rule"},
		{name: "name at the top of a wildcard", mode: EgressAllowlist, allow: "*.example", names: "example", to: "8.8.8.8:80", want: "no allow rule"},
		{name: "name with the same end", mode: EgressAllowlist, allow: "*.example", names: "notexample", to: "8.8.8.8:80", want: "no allow rule"},
		{name: "name opens private", mode: EgressDefault, allow: "a.example", names: "a.example", to: "10.0.0.1:80", want: "+allow rule"},
		{name: "name opens no loopback", mode: EgressDefault, allow: "a.example", names: "a.example", to: "127.0.0.1:80", want: "loopback"},
		{name: "name opens no metadata", mode: EgressDefault, allow: "a.example", names: "a.example", to: "169.254.169.254:80", want: "cloud metadata"},
		{name: "name opens no metadata in a private range", mode: EgressDefault, allow: "a.example", names: "a.example", to: "[fd00:ec2::254]:80", want: "cloud metadata (AWS)"},

		{name: "own address", mode: EgressDefault, own: true, to: "8.8.8.8:22", want: "the host's own address"},
		{name: "own address, prefix around it", mode: EgressDefault, allow: "10.0.0.0/8", own: true, to: "10.0.0.5:22", want: "the host's own address"},
		{name: "own address, name", mode: EgressDefault, allow: "a.example", names: "a.example", own: true, to: "10.0.0.5:22", want: "the host's own address"},
		{name: "own address by itself", mode: EgressDefault, allow: "10.0.0.5:5000", own: true, to: "10.0.0.5:5000", want: "+allow rule"},
	} {
		to := netip.MustParseAddrPort(c.to)
		e := Egress{Mode: c.mode, Allow: rules(t, ParseAllow, c.allow), Deny: rules(t, ParseDeny, c.deny)}
		got := e.Judge(Destination{Addr: to.Addr(), Port: to.Port(), Names: strings.Fields(c.names), Own: c.own})
		if reason, allowed := strings.CutPrefix(c.want, "+"); got != (Verdict{allowed, reason}) {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
	}
}

func rules(t *testing.T, parse func(string) ([]EgressRule, error), text string) (out []EgressRule) {
	t.Helper()
	for _, f := range strings.Fields(text) {
		r, err := parse(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r...)
	}
	return out
}

func TestJudgeName(t *testing.T) {
	for _, c := range []struct {
		mode        EgressMode
		allow, deny string
		name        string
		want        bool
	}{
		{EgressNone, "a.example", "", "a.example.", false},
		{EgressDefault, "", "", "a.example.", true},
		{EgressDefault, "", "a.example", "A.Example.", false},
		{EgressDefault, "a.example", "a.example", "a.example", false},
		{EgressDefault, "", "*.example", "b.a.example", false},
		{EgressAllowlist, "", "", "a.example", false},
		{EgressAllowlist, "a.example:443", "", "A.EXAMPLE.", true},
		{EgressAllowlist, "a.example:443", "", "secret.a.example.", false},
		{EgressAllowlist, "8.8.8.8", "", "8.8.8.8.in-addr.arpa.", false},
	} {
		e := Egress{Mode: c.mode, Allow: rules(t, ParseAllow, c.allow), Deny: rules(t, ParseDeny, c.deny)}
		if got := e.JudgeName(c.name); got.Allowed != c.want {
			t.Errorf("%v allow %q deny %q: %s: %+v", c.mode, c.allow, c.deny, c.name, got)
		}
	}
}

func TestParseAllow(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"example.com", "example.com:0"},
		{"Example.COM.:443", "example.com:443"},
		{"*.example.com", "*.example.com:0"},
		{"10.0.0.0/8", "10.0.0.0/8:0"},
		{"10.0.0.0/8:443", "10.0.0.0/8:443"},
		{"10.1.2.3:5000", "10.1.2.3/32:5000"},
		{"2001:db8::1", "2001:db8::1/128:0"},
		{"[2001:db8::1]", "2001:db8::1/128:0"},
		{"[2001:db8::1]:53", "2001:db8::1/128:53"},
		{"2001:db8::/32", "2001:db8::/32:0"},
		{"[2001:db8::/32]:53", "2001:db8::/32:53"},
		{"LocalHost:5000", "127.0.0.1/32:5000 ::1/128:5000"},

		{"", "neither"}, {":80", "neither"}, {"*", "neither"}, {"*.*.com", "neither"}, {"a..b", "neither"}, {"a b", "neither"},
		{"http://example.com", "no port"}, {"example.com/path", "no prefix"}, {"user@example.com", "neither"},
		{"127.1", "neither"}, {"2130706433", "neither"}, {"0x7f.1", "neither"}, {"0177.0.0.1", "neither"}, {"127.0.0.0x1", "neither"},
		{"1.2.3.4.5", "neither"}, {"256.1.1.1", "neither"},
		{"10.1.2.3/8", "the prefix is 10.0.0.0/8"}, {"10.0.0.0/33", "no prefix"}, {"10.0.0.0/255.0.0.0", "no prefix"},
		{"::ffff:10.0.0.1", "IPv4 address 10.0.0.1"}, {"::ffff:10.0.0.0/104", "IPv4 prefix"},
		{"fe80::1%eth0", "zone"}, {"[10.0.0.1]:80", "brackets"}, {"[::1", "neither"}, {"[::1]80", "bracket"}, {"a[::1]", "bracket"},
		{"a.example:0", "no port"}, {"a.example:080", "no port"}, {"a.example:65536", "no port"}, {"a.example:", "no port"}, {"a.example:+5", "no port"},
		{strings.Repeat("a", 64) + ".com", "neither"}, {"münchen.example", "neither"},
	} {
		rules, err := ParseAllow(c.text)
		var got []string
		for _, r := range rules {
			if r.Name != "" {
				got = append(got, fmt.Sprintf("%s:%d", r.Name, r.Port))
			} else {
				got = append(got, fmt.Sprintf("%s:%d", r.Prefix, r.Port))
			}
		}
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, %v, want %q", c.text, got, err, c.want)
		}
	}
	if _, err := ParseDeny("a.example:443"); err == nil || !strings.Contains(err.Error(), "all its ports") {
		t.Errorf("a denied name with a port: %v", err)
	}
}

func TestParseEgressMode(t *testing.T) {
	for _, m := range []EgressMode{EgressNone, EgressDefault, EgressAllowlist} {
		if got, err := ParseEgressMode(m.String()); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if m, err := ParseEgressMode("host"); err == nil || m != EgressNone {
		t.Errorf("host: %v, %v", m, err)
	}
}
