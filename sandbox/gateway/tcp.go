package gateway

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// copySize is what is moved at once, in bytes.
const copySize = 64 << 10

// pairOf is the pair of a connection.
func pairOf(id stack.TransportEndpointID) pair {
	return pair{proto: protoTCP, from: id.RemotePort, to: target(id)}
}

// paced drops connection requests that come too fast, and those that are sent
// again although the answer is on its way.
func (g *Gateway) paced(next func(stack.TransportEndpointID, *stack.PacketBuffer) bool) func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	return func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		h := header.TCP(pkt.TransportHeader().Slice())
		if h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
			return next(id, pkt)
		}
		if g.attempts.repeats(pairOf(id), h.SequenceNumber(), time.Now()) {
			return true
		}
		if !g.starts.Allow() {
			g.shed.Add(1)
			return true
		}
		return next(id, pkt)
	}
}

// connect serves one connection request. The host connects first: the sandbox
// gets a connection if there is one, else a reset.
func (g *Gateway) connect(r *tcp.ForwarderRequest) {
	f := g.begin(protoTCP, target(r.ID()))
	if f == nil {
		r.Complete(false) // it will be sent again
		return
	}
	defer f.end()
	if f.denied() {
		g.refuse(r)
		return
	}
	d := net.Dialer{Timeout: g.limits.Dial}
	c, err := d.DialContext(g.ctx, "tcp", f.address().String())
	if err != nil {
		f.fail(err)
		g.refuse(r)
		return
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	r.Complete(false)
	if terr != nil {
		f.fail(plain(terr))
		reset(out)
		return
	}
	if !f.wide {
		narrow(ep)
	}
	s := &splice{f: f, out: out, ep: ep, in: gonet.NewTCPConn(&queue, ep)}
	s.run()
}

// refuse answers a request with a reset.
func (g *Gateway) refuse(r *tcp.ForwarderRequest) {
	g.attempts.refuse(pairOf(r.ID()), time.Now())
	r.Complete(true)
}

// reset closes a host's connection as if it had failed, not ended.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // it is closed in any case
	c.Close()
}

// splice is a connection in two halves.
type splice struct {
	f      *flow
	out    *net.TCPConn // the host's
	ep     tcpip.Endpoint
	in     *gonet.TCPConn // the sandbox's, over ep
	broken atomic.Bool
	closed atomic.Bool // one direction
}

// run moves bytes until both sides have closed, or one has failed, or nothing
// has moved for too long.
func (s *splice) run() {
	s.f.limit(s.f.g.limits.TCPIdle)
	s.f.onStop(s.abort)
	var wg sync.WaitGroup
	wg.Go(func() { s.move(s.out, s.in, &s.f.out) })
	wg.Go(func() { s.move(s.in, s.out, &s.f.in) })
	wg.Wait()
	s.f.limit(0)
	if !s.broken.Load() {
		s.f.g.settle(s.ep)
	}
	s.in.Close()
}

// half is one end of a connection.
type half interface {
	io.ReadWriter
	CloseWrite() error
}

// move copies one direction to its end.
func (s *splice) move(to, from half, count *atomic.Int64) {
	size := copySize
	if !s.f.wide {
		size = narrowCopy
	}
	buf := make([]byte, size)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			s.f.touch()
			if _, werr := to.Write(buf[:n]); werr != nil {
				s.abort()
				return
			}
			count.Add(int64(n))
			s.f.touch()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if to.CloseWrite() != nil {
				s.abort()
			}
			if !s.closed.Swap(true) {
				s.f.limit(s.f.g.limits.HalfClosed)
			}
			return
		default:
			s.abort()
			return
		}
	}
}

// abort resets both sides.
func (s *splice) abort() {
	s.broken.Store(true)
	reset(s.out)
	s.ep.Abort()
}

// narrow bounds what an endpoint holds.
func narrow(ep tcpip.Endpoint) {
	ep.SocketOptions().SetReceiveBufferSize(narrowReceive, true)
	ep.SocketOptions().SetSendBufferSize(narrowSend, true)
}

// settle waits until the sandbox has acknowledged the end, so that a sandbox
// that does not keeps its place in the table, and no more than that.
func (g *Gateway) settle(ep tcpip.Endpoint) {
	const first, most = time.Millisecond, 100 * time.Millisecond
	until := time.Now().Add(g.limits.Linger)
	for wait := first; ; wait = min(2*wait, most) {
		switch tcp.EndpointState(ep.State()) {
		case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
			return
		}
		if time.Now().After(until) || g.ctx.Err() != nil {
			ep.Abort()
			return
		}
		time.Sleep(wait)
	}
}
