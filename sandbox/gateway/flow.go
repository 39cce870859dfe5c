package gateway

import (
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// The protocols of records.
const (
	protoTCP  = "tcp"
	protoUDP  = "udp"
	protoEcho = "icmp"
	// ProtocolDNS is that of a question to a name server.
	ProtocolDNS = "dns"
)

// flow is one conversation from its judgement to its record.
type flow struct {
	g       *Gateway
	rec     Record
	wide    bool // a TCP connection with large buffers
	in, out atomic.Int64
	last    atomic.Int64 // when a byte moved, in Unix nanoseconds
	idle    atomic.Int64 // how long none may move, in nanoseconds; 0: for ever
	// stop breaks the flow off. Set with onStop, called by the gateway's sweep
	// and end.
	stop func()
}

// begin judges a flow to an address. It returns nil if the gateway is at its
// limit for the protocol, or ending: then nothing was judged. Whoever gets a
// flow ends it.
func (g *Gateway) begin(proto string, to netip.AddrPort) *flow {
	dest, names, verdict := g.judge(to)
	rec := Record{Address: dest.Addr(), Port: dest.Port(), Verdict: Allowed, Reason: verdict.Reason}
	if !verdict.Allowed {
		rec.Verdict = Denied
	}
	if len(names) > 0 {
		rec.Name = names[0]
	}
	return g.open(proto, rec)
}

// judge returns what a destination stands for, the names that it was resolved
// from and the policy's verdict.
func (g *Gateway) judge(to netip.AddrPort) (netip.AddrPort, []string, policy.Verdict) {
	dest := to
	switch to.Addr() {
	case GatewayIPv4:
		dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	case GatewayIPv6:
		dest = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	names := g.names.of(dest.Addr(), time.Now())
	return dest, names, g.egress.Judge(policy.Destination{
		Addr: dest.Addr(), Port: dest.Port(), Names: names,
		Own: !dest.Addr().IsLoopback() && g.own.has(dest.Addr()),
	})
}

// open counts a flow and gives it a place in the table.
func (g *Gateway) open(proto string, rec Record) *flow {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending || g.live[proto] >= g.most(proto) {
		g.shed.Add(1)
		return nil
	}
	rec.Time, rec.Role, rec.Steps, rec.Protocol = time.Now(), g.role, g.steps, proto
	f := &flow{g: g, rec: rec}
	f.touch()
	g.flowCount.Add(1)
	g.live[proto]++
	if proto == protoTCP && rec.Verdict == Allowed && g.wide < g.limits.Wide {
		g.wide++
		f.wide = true
	}
	g.table[f] = struct{}{}
	g.running.Add(1)
	return f
}

// most is the limit of flows at once.
func (g *Gateway) most(proto string) int {
	switch proto {
	case protoTCP:
		return g.limits.TCP
	case protoUDP:
		return g.limits.UDP
	case protoEcho:
		return g.limits.Echo
	}
	return g.limits.Questions
}

func (f *flow) denied() bool { return f.rec.Verdict == Denied }

// address is where to dial.
func (f *flow) address() netip.AddrPort { return netip.AddrPortFrom(f.rec.Address, f.rec.Port) }

// touch says that a byte has moved.
func (f *flow) touch() { f.last.Store(time.Now().UnixNano()) }

// limit sets how long no byte may move.
func (f *flow) limit(d time.Duration) { f.idle.Store(int64(d)) }

// onStop says how to break the flow off. It does so at once if the gateway is
// ending already.
func (f *flow) onStop(stop func()) {
	f.g.mu.Lock()
	f.stop = stop
	ending := f.g.ending
	f.g.mu.Unlock()
	if ending {
		stop()
	}
}

// fail turns an allowed flow into a failed one.
func (f *flow) fail(err error) {
	f.rec.Verdict, f.rec.Reason = Failed, failure(err)
}

// end gives the record, and the place free. It waits while the sink is behind.
func (f *flow) end() {
	f.rec.Took = time.Since(f.rec.Time)
	f.rec.In, f.rec.Out = f.in.Load(), f.out.Load()
	if f.denied() {
		f.g.deniedCount.Add(1)
	}
	f.g.records.put(f.rec)
	f.g.mu.Lock()
	delete(f.g.table, f)
	f.g.live[f.rec.Protocol]--
	if f.wide {
		f.g.wide--
	}
	f.g.mu.Unlock()
	f.g.running.Done()
}

// sweep breaks off the flows that are idle for too long, until the gateway ends.
func (g *Gateway) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-tick.C:
			g.breakOff(func(f *flow) bool {
				idle := f.idle.Load()
				return idle > 0 && now.UnixNano()-f.last.Load() > idle
			})
			g.mute.expire(now)
			g.attempts.expire(now)
		}
	}
}

const sweepEvery = time.Second

// breakOff stops the flows that are chosen.
func (g *Gateway) breakOff(choose func(*flow) bool) {
	var stops []func()
	g.mu.Lock()
	for f := range g.table {
		if f.stop != nil && choose(f) {
			stops = append(stops, f.stop)
		}
	}
	g.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

// failure is an error of the host's network in few words.
func failure(err error) string {
	var errno syscall.Errno
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	}
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}
