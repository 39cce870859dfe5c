package gateway

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// icmpHeader is the size of an echo's header and of an unreachable's: type,
// code, checksum, and four bytes that are identifier and sequence of an echo.
const icmpHeader = 8

// family is what ICMP of one IP version looks like.
type family struct {
	net            tcpip.NetworkProtocolNumber
	trans          tcpip.TransportProtocolNumber
	sandbox        netip.Addr
	request, reply uint8
	// unreachable and prohibited are type and code of "the policy denies it".
	unreachable, prohibited uint8
}

func family4() family {
	return family{ipv4.ProtocolNumber, header.ICMPv4ProtocolNumber, SandboxIPv4,
		uint8(header.ICMPv4Echo), uint8(header.ICMPv4EchoReply), uint8(header.ICMPv4DstUnreachable), uint8(header.ICMPv4AdminProhibited)}
}

func family6() family {
	return family{ipv6.ProtocolNumber, header.ICMPv6ProtocolNumber, SandboxIPv6,
		uint8(header.ICMPv6EchoRequest), uint8(header.ICMPv6EchoReply), uint8(header.ICMPv6DstUnreachable), uint8(header.ICMPv6Prohibited)}
}

func (g *Gateway) echo4(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	return g.echo(family4(), id, pkt)
}

func (g *Gateway) echo6(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	return g.echo(family6(), id, pkt)
}

// echo serves an echo request. It returns false for what the stack shall see
// to itself: other messages, and requests to the gateway.
func (g *Gateway) echo(fam family, id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := pkt.TransportHeader().Slice()
	to := target(id).Addr()
	if len(h) < icmpHeader || h[0] != fam.request || to == GatewayIPv4 || to == GatewayIPv6 {
		return false
	}
	p := pair{proto: protoEcho, from: binary.BigEndian.Uint16(h[4:]), to: netip.AddrPortFrom(to, 0)}
	if g.mute.has(p, time.Now()) {
		g.unreachable(fam, to, pkt)
		return true
	}
	flow := g.pings.find(p)
	if flow == nil {
		if flow = g.newPing(fam, p); flow == nil {
			g.unreachable(fam, to, pkt)
			return true
		}
	}
	flow.send(binary.BigEndian.Uint16(h[6:]), pkt.Data().AsRange().ToSlice())
	return true
}

// newPing judges a new pair and opens its socket. It returns nil if there is
// none to be had.
func (g *Gateway) newPing(fam family, p pair) *ping {
	if !g.starts.Allow() {
		g.shed.Add(1)
		return nil
	}
	f := g.begin(protoEcho, p.to)
	if f == nil {
		return nil
	}
	sock, err := (*echoSocket)(nil), error(nil)
	if !f.denied() {
		if sock, err = openEcho(p.to.Addr()); err != nil {
			f.fail(err)
		}
	}
	if sock == nil {
		g.mute.add(p, time.Now())
		f.end()
		return nil
	}
	flow := &ping{f: f, fam: fam, pair: p, sock: sock}
	g.pings.add(flow)
	go flow.receive()
	return flow
}

// pings are the pings that wait for replies.
type pings struct {
	mu   sync.Mutex
	live map[pair]*ping
}

func (p *pings) find(k pair) *ping {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live[k]
}

func (p *pings) add(x *ping) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[x.pair] = x
}

func (p *pings) drop(x *ping) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, x.pair)
}

// ping is a flow of echo requests with one identifier to one address.
type ping struct {
	f    *flow
	fam  family
	pair pair
	sock *echoSocket
}

func (p *ping) send(seq uint16, payload []byte) {
	p.f.touch()
	if p.sock.send(p.fam, seq, payload) == nil { // else it is lost, as packets may be
		p.f.out.Add(int64(len(payload)))
	}
}

// receive passes replies on until none has been asked for for a while.
func (p *ping) receive() {
	defer p.f.end()
	defer p.f.g.pings.drop(p)
	p.f.limit(p.f.g.limits.EchoIdle)
	p.f.onStop(func() { p.sock.Close() })
	defer p.sock.Close()
	buf := make([]byte, maxDatagram)
	for {
		n, err := p.sock.read(buf)
		if err != nil {
			return
		}
		if b := buf[:n]; p.sock.isReply(p.fam, b) {
			p.f.in.Add(int64(n - icmpHeader))
			binary.BigEndian.PutUint16(b[4:], p.pair.from)
			p.f.g.write(p.fam, p.pair.to.Addr(), b)
		}
	}
}

// unreachable answers a packet whose destination is denied.
func (g *Gateway) unreachable(fam family, from netip.Addr, pkt *stack.PacketBuffer) {
	if !g.net.AllowICMPMessage() {
		return
	}
	msg := make([]byte, icmpHeader, 128)
	msg[0], msg[1] = fam.unreachable, fam.prohibited
	msg = append(msg, pkt.NetworkHeader().Slice()...)
	msg = append(msg, pkt.TransportHeader().Slice()...)
	g.write(fam, from, msg)
}

// write sends the sandbox an ICMP message from an address. A message that
// cannot be sent is lost, as packets may be.
func (g *Gateway) write(fam family, from netip.Addr, msg []byte) {
	r, err := g.net.FindRoute(nic, guest(from), guest(fam.sandbox), fam.net, false)
	if err != nil {
		return
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()) + icmpHeader,
		Payload:            buffer.MakeWithData(msg[icmpHeader:]),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(icmpHeader)
	copy(h, msg)
	sum(fam, h, guest(from), msg[icmpHeader:])
	pkt.TransportProtocolNumber = fam.trans
	_ = r.WritePacket(stack.NetworkHeaderParams{Protocol: fam.trans, TTL: 64}, pkt)
}

// sum sets the checksum of a message to the sandbox.
func sum(fam family, h []byte, from tcpip.Address, payload []byte) {
	h[2], h[3] = 0, 0
	data := checksum.Checksum(payload, 0)
	if fam.net == ipv4.ProtocolNumber {
		header.ICMPv4(h).SetChecksum(header.ICMPv4Checksum(h, data))
		return
	}
	header.ICMPv6(h).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: h, Src: from, Dst: guest(fam.sandbox), PayloadCsum: data, PayloadLen: len(payload),
	}))
}
