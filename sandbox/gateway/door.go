package gateway

import (
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// door stands between the link and the stack. It lets in what the stack's
// handlers judge, and judges itself what never gets to them: packets to many,
// and protocols that are not forwarded.
type door struct {
	nested.Endpoint
	g *Gateway
}

func newDoor(g *Gateway, link stack.LinkEndpoint) *door {
	d := &door{g: g}
	d.Init(link, d)
	return d
}

// DeliverNetworkPacket takes a packet from the link.
func (d *door) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	var in bool
	switch proto {
	case arp.ProtocolNumber:
		in = true
	case ipv4.ProtocolNumber:
		in = d.admit4(pkt)
	case ipv6.ProtocolNumber:
		in = d.admit6(pkt)
	default:
		d.g.strays.Add(1)
	}
	if in {
		d.Endpoint.DeliverNetworkPacket(proto, pkt)
	}
}

func (d *door) admit4(pkt *stack.PacketBuffer) bool {
	b, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
	if !ok {
		d.g.strays.Add(1)
		return false
	}
	h := header.IPv4(b)
	src, dst := host(h.SourceAddress()), host(h.DestinationAddress())
	switch {
	case src == netip.IPv4Unspecified(): // a question for an address, which the link has
		return false
	case src != SandboxIPv4:
		d.g.strays.Add(1)
		return false
	case h.Protocol() == uint8(header.IGMPProtocolNumber): // membership of groups: there are none
		return false
	}
	proto := protocolName(h.TransportProtocol())
	if dst.IsMulticast() || dst == broadcast4() || dst == netip.IPv4Unspecified() {
		d.deny(proto, dst)
		return false
	}
	if _, known := forwarded(h.TransportProtocol()); !known {
		// The stack answers that there is no such protocol.
		d.deny(proto, dst)
	}
	return true
}

func (d *door) admit6(pkt *stack.PacketBuffer) bool {
	b, ok := pkt.Data().PullUp(header.IPv6MinimumSize)
	if !ok {
		d.g.strays.Add(1)
		return false
	}
	h := header.IPv6(b)
	src, dst := host(h.SourceAddress()), host(h.DestinationAddress())
	next := tcpip.TransportProtocolNumber(h.NextHeader()) // or an extension, which the stack walks through
	local := src.IsLinkLocalUnicast() || src.IsUnspecified()
	switch {
	case src != SandboxIPv6 && !local:
		d.g.strays.Add(1)
		return false
	case dst.IsLinkLocalMulticast():
		// Neighbours are looked for there. What else is said to the link reaches
		// nobody: the stack has joined no group but those that it needs.
		if next == header.ICMPv6ProtocolNumber || next == hopByHop {
			return true
		}
		d.deny(protocolName(next), dst)
		return false
	case dst.IsMulticast():
		d.deny(protocolName(next), dst)
		return false
	case local && !dst.IsLinkLocalUnicast() && dst != GatewayIPv6:
		d.g.strays.Add(1)
		return false
	}
	if _, known := forwarded(next); !known && !extension(next) {
		d.deny(protocolName(next), dst)
	}
	return true
}

// deny makes the record of a packet that is not forwarded whatever the policy
// says, once for many.
func (d *door) deny(proto string, dst netip.Addr) {
	g, now := d.g, time.Now()
	p := pair{proto: "door " + proto, to: netip.AddrPortFrom(dst, 0)}
	if g.mute.has(p, now) {
		return
	}
	if !g.starts.Allow() {
		g.shed.Add(1)
		return
	}
	f := g.open(proto, Record{Address: dst, Verdict: Denied, Reason: "not forwarded"})
	if f == nil {
		return
	}
	if dst.IsMulticast() {
		f.rec.Reason = "multicast"
	}
	g.mute.add(p, now)
	f.end()
}

const hopByHop = tcpip.TransportProtocolNumber(0)

// extension tells whether n is not a protocol but another header of IPv6.
func extension(n tcpip.TransportProtocolNumber) bool {
	switch n {
	case hopByHop, 43, 44, 60: // routing, fragment, destination options
		return true
	}
	return false
}

// forwarded names the protocols that go out.
func forwarded(n tcpip.TransportProtocolNumber) (string, bool) {
	switch n {
	case header.TCPProtocolNumber:
		return protoTCP, true
	case header.UDPProtocolNumber:
		return protoUDP, true
	case header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber:
		return protoEcho, true
	}
	return "", false
}

// protocolName is a protocol's name in a record.
func protocolName(n tcpip.TransportProtocolNumber) string {
	if name, known := forwarded(n); known {
		return name
	}
	return fmt.Sprintf("ip/%d", n)
}

func broadcast4() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }
