package gateway

import (
	"net/netip"
	"testing"
	"time"
)

// A request that is sent again after its answer is the same attempt; a new one
// from the same port is not, nor is one that has no answer yet.
func TestAttempts(t *testing.T) {
	a := attempts{seen: map[pair]attempt{}}
	now := time.Now()
	p := pair{proto: protoTCP, from: 1, to: netip.MustParseAddrPort("10.0.0.1:80")}
	for i, c := range []struct {
		sequence uint32
		after    time.Duration
		refuse   bool
		want     bool
	}{
		{7, 0, false, false}, {7, time.Second, true, false}, {7, 2 * time.Second, false, true}, {7, 4 * time.Second, false, true},
		{7, 6 * time.Second, true, false}, {8, 7 * time.Second, true, false}, {8, 8 * time.Second, false, true},
	} {
		at := now.Add(c.after)
		if got := a.repeats(p, c.sequence, at); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
		if c.refuse {
			a.refuse(p, at)
		}
	}
	for i := range 2 * mostSyns {
		a.repeats(pair{from: uint16(i), to: netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i >> 16)}), 1)}, 1, now)
	}
	if len(a.seen) > mostSyns {
		t.Errorf("%d are remembered", len(a.seen))
	}
	a.expire(now.Add(time.Minute))
	if len(a.seen) != 0 {
		t.Errorf("%d are left", len(a.seen))
	}
}
