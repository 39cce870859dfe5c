package gateway

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// udpQueue is what may wait for the host in one UDP flow, in bytes.
const udpQueue = 64 << 10

// maxDatagram is the largest payload there is.
const maxDatagram = 65507

// datagram serves the first datagram of a pair of addresses. It returns false
// where the sandbox shall hear that the port is unreachable.
func (g *Gateway) datagram(r *udp.ForwarderRequest) bool {
	id, now := r.ID(), time.Now()
	p := pair{proto: protoUDP, from: id.RemotePort, to: target(id)}
	switch {
	case g.mute.has(p, now):
		return false
	case !g.starts.Allow():
		g.shed.Add(1)
		return true
	}
	f := g.begin(protoUDP, p.to)
	if f == nil {
		return true
	}
	if f.denied() {
		g.mute.add(p, now)
		f.end()
		return false
	}
	out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.address()))
	if err != nil {
		f.fail(err)
		g.mute.add(p, now)
		f.end()
		return false
	}
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	if terr != nil {
		f.fail(plain(terr))
		out.Close()
		f.end()
		return true
	}
	ep.SocketOptions().SetReceiveBufferSize(udpQueue, false)
	go f.exchange(out, gonet.NewUDPConn(&queue, ep))
	return true
}

// exchange moves datagrams until none has come for a while, or the host says
// that nobody is there.
func (f *flow) exchange(out *net.UDPConn, in *gonet.UDPConn) {
	defer f.end()
	f.limit(f.g.limits.UDPIdle)
	stop := func() { out.Close(); in.Close() }
	f.onStop(stop)
	var wg sync.WaitGroup
	wg.Go(func() { f.relay(out, in, &f.out); stop() })
	wg.Go(func() { f.relay(in, out, &f.in); stop() })
	wg.Wait()
}

func (f *flow) relay(to io.Writer, from io.Reader, count *atomic.Int64) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		f.touch()
		// A datagram that cannot be sent now is lost, as datagrams may be.
		if m, err := to.Write(buf[:n]); err == nil {
			count.Add(int64(m))
		}
	}
}
