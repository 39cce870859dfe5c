package gateway

import (
	"net/netip"
	"sync"
	"time"
)

// muteFor is how long a denied pair of addresses makes no second record. Each
// of its packets is denied all the same.
const muteFor = 30 * time.Second

// mostMute bounds the pairs that are remembered.
const mostMute = 4096

// pair identifies a flow without connections: the sandbox's port (of an echo
// request: its identifier) and the destination.
type pair struct {
	proto string
	from  uint16
	to    netip.AddrPort
}

// mute remembers the pairs that were denied a moment ago, so that a flow of
// many datagrams is one record.
type mute struct {
	mu    sync.Mutex
	until map[pair]time.Time
}

// has tells whether p was denied a moment ago.
func (m *mute) has(p pair, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, found := m.until[p]
	if found = found && now.Before(t); found {
		m.until[p] = now.Add(muteFor)
	}
	return found
}

// add remembers p. When too many are remembered, p is not, and will make
// another record.
func (m *mute) add(p pair, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.until) < mostMute {
		m.until[p] = now.Add(muteFor)
	}
}

func (m *mute) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, t := range m.until {
		if now.After(t) {
			delete(m.until, p)
		}
	}
}
