package sandbox

import (
	"net/netip"
	"sync"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// mostDestinations is how many destinations of a role are counted one by one.
const mostDestinations = 100000

// tally counts what went through the gateways of a build.
type tally struct {
	mu    sync.Mutex
	ended map[request.Role]NetworkCounts
	seen  map[request.Role]map[netip.AddrPort]struct{}
}

func newTally() *tally {
	return &tally{ended: map[request.Role]NetworkCounts{}, seen: map[request.Role]map[netip.AddrPort]struct{}{}}
}

// watch lets n tell the tally too.
func (t *tally) watch(n Network) Network {
	audit, closed := n.Audit, n.Closed
	n.Audit = func(r gateway.Record) {
		t.note(r)
		if audit != nil {
			audit(r)
		}
	}
	n.Closed = func(role request.Role, c gateway.Counters) {
		t.mu.Lock()
		t.ended[role] = NetworkCounts{
			Flows: c.Flows, Records: c.Records, Denied: c.Denied, Shed: c.Shed, Destinations: len(t.seen[role]),
		}
		t.mu.Unlock()
		if closed != nil {
			closed(role, c)
		}
	}
	return n
}

// note counts where a flow went, or tried to. What was denied went nowhere, and
// a question goes to the gateway's own name servers.
func (t *tally) note(r gateway.Record) {
	if r.Verdict == gateway.Denied || r.Protocol == gateway.ProtocolDNS {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	role := request.Role(r.Role)
	if t.seen[role] == nil {
		t.seen[role] = map[netip.AddrPort]struct{}{}
	}
	if len(t.seen[role]) < mostDestinations {
		t.seen[role][netip.AddrPortFrom(r.Address, r.Port)] = struct{}{}
	}
}

// counts are those of the roles that have ended, and of those without a network.
func (t *tally) counts(n Network) map[request.Role]NetworkCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[request.Role]NetworkCounts{}
	for _, role := range roles {
		if c, ended := t.ended[role]; ended || n.none(role) {
			all[role] = c
		}
	}
	return all
}
