package policy

import (
	"net/netip"
	"testing"
)

// A rule with Near opens loopback and the host's own address for its name and
// port, and nothing else that a name does not open.
func TestNear(t *testing.T) {
	allow := rules(t, ParseAllow, "registry:5000")
	allow[0].Near = true
	e := Egress{Mode: EgressAllowlist, Allow: allow}
	for _, c := range []struct {
		to, name string
		own      bool
		want     bool
	}{
		{"127.0.0.1:5000", "registry", false, true},
		{"[::1]:5000", "registry", false, true},
		{"127.0.0.1:5001", "registry", false, false},
		{"127.0.0.1:5000", "other", false, false},
		{"8.8.8.8:5000", "registry", true, true},
		{"8.8.8.8:5000", "other", true, false},
		{"169.254.169.254:5000", "registry", false, false},
		{"10.0.0.1:5000", "registry", false, true},
	} {
		to := netip.MustParseAddrPort(c.to)
		if got := e.Judge(Destination{Addr: to.Addr(), Port: to.Port(), Names: []string{c.name}, Own: c.own}); got.Allowed != c.want {
			t.Errorf("%s as %s: %+v", c.to, c.name, got)
		}
	}
}

// TestOpens: no rule is told for metadata services and the like.
func TestOpens(t *testing.T) {
	e := RunEgress()
	for addr, want := range map[string]Opener{
		"127.0.0.1": OpensByAddress, "::1": OpensByAddress, "10.0.0.1": OpensByName, "fd00::1": OpensByName, "100.64.0.1": OpensByName,
		"169.254.169.254": OpensNever, "fd00:ec2::254": OpensNever, "169.254.1.1": OpensNever, "224.0.0.1": OpensNever, "::ffff:10.0.0.1": OpensNever,
	} {
		if got := Opens("taken out of the answer: " + e.Judge(Destination{Addr: netip.MustParseAddr(addr)}).Reason); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	e.Deny = rules(t, ParseDeny, "8.8.8.8")
	denied := e.Judge(Destination{Addr: netip.MustParseAddr("8.8.8.8")}).Reason
	e.Mode = EgressAllowlist
	listed := e.Judge(Destination{Addr: netip.MustParseAddr("8.8.4.4")}).Reason
	own := e.Judge(Destination{Addr: netip.MustParseAddr("8.8.4.4"), Own: true}).Reason
	if Opens(denied) != OpensNever || Opens(listed) != OpensByName || Opens(own) != OpensByAddress || Opens("not forwarded") != OpensNever {
		t.Errorf("%q %q %q", denied, listed, own)
	}
}
