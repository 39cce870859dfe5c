package gateway

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered about names. An address counts for its name for
// at least nameLeast, since programs keep addresses longer than name servers
// say, and at most nameMost.
const (
	mostAddresses   = 8192
	mostNamesOfOne  = 8
	nameLeast       = 5 * time.Minute
	nameMost        = time.Hour
	evictionAttempt = 64
)

// names remembers which addresses the sandbox got for which names.
type names struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]named
}

type named struct {
	name  string
	until time.Time
}

// remember says that name was resolved to addr.
func (n *names) remember(addr netip.Addr, name string, ttl time.Duration, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.byAddr[addr]; !known && len(n.byAddr) >= mostAddresses {
		n.evict(now)
	}
	list := slices.DeleteFunc(n.byAddr[addr], func(x named) bool { return x.name == name || now.After(x.until) })
	if len(list) >= mostNamesOfOne {
		list = list[:mostNamesOfOne-1]
	}
	until := now.Add(min(max(ttl, nameLeast), nameMost))
	n.byAddr[addr] = slices.Insert(list, 0, named{name, until})
}

// evict makes room: an address whose names have run out, among a few, or else
// any one.
func (n *names) evict(now time.Time) {
	var victim netip.Addr
	tried := 0
	for a, list := range n.byAddr {
		victim = a
		if tried++; tried == evictionAttempt || now.After(list[0].until) {
			break
		}
	}
	delete(n.byAddr, victim)
}

// of lists the names that addr counts for, the latest first.
func (n *names) of(addr netip.Addr, now time.Time) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.byAddr[addr] {
		if now.Before(x.until) {
			out = append(out, x.name)
		}
	}
	return out
}
