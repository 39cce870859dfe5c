package gateway

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownFor is how long the host's addresses are taken to stay as they are.
const ownFor = time.Second

// own knows the host's own addresses. To dial one of them is to reach what
// listens on the host, past the firewall before it.
type own struct {
	mu   sync.Mutex
	read time.Time
	set  map[netip.Addr]bool
	// list reads them; net.InterfaceAddrs.
	list func() ([]net.Addr, error)
}

// has tells whether a is one of them. Where they cannot be read every address
// is: then nothing but what an allow rule names by address is reached.
func (o *own) has(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); o.set == nil || now.Sub(o.read) > ownFor {
		list, err := o.list()
		if err != nil {
			o.set = nil
			return true
		}
		o.read, o.set = now, map[netip.Addr]bool{}
		for _, x := range list {
			if p, err := netip.ParsePrefix(x.String()); err == nil {
				o.set[p.Addr().Unmap().WithZone("")] = true
			}
		}
	}
	return o.set[a]
}
