package sandbox

import (
	"net/netip"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// Destinations are the different ones of flows that the policy let go: not what
// it denied, and no name servers.
func TestDestinations(t *testing.T) {
	y := newTally()
	n := y.watch(Network{})
	web := netip.MustParseAddr("1.1.1.1")
	for _, r := range []gateway.Record{
		{Protocol: "tcp", Address: web, Port: 443, Verdict: gateway.Allowed},
		{Protocol: "tcp", Address: web, Port: 443, Verdict: gateway.Failed},
		{Protocol: "udp", Address: web, Port: 80, Verdict: gateway.Failed},
		{Protocol: "icmp", Address: web, Verdict: gateway.Allowed},
		{Protocol: "tcp", Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Verdict: gateway.Denied},
		{Protocol: gateway.ProtocolDNS, Address: netip.MustParseAddr("8.8.8.8"), Port: 53, Verdict: gateway.Allowed},
		{Protocol: gateway.ProtocolDNS, Verdict: gateway.Failed},
		{Protocol: gateway.ProtocolDNS, Verdict: gateway.Denied},
	} {
		r.Role = string(request.RoleBuild)
		n.Audit(r)
	}
	n.Closed(request.RoleBuild, gateway.Counters{Flows: 8})
	if c := y.counts(n)[request.RoleBuild]; c.Destinations != 3 || c.Flows != 8 {
		t.Errorf("%+v, want 3 destinations of 8 flows", c)
	}
}
