package gateway

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bounds of DNS over TCP with the sandbox.
const (
	maxNameConns   = 32
	maxOnNameConn  = 100 // questions
	nameConnIdle   = 10 * time.Second
	maxAnswerOnTCP = 1<<16 - 1
	nameBacklog    = 16
)

// nameListener takes connections of the sandbox. gonet's would hide the endpoints,
// whose unread answers the stack keeps after Close for as long as a sandbox wants.
type nameListener struct {
	g     *Gateway
	ep    tcpip.Endpoint
	queue *waiter.Queue
}

func (g *Gateway) listenNames(at tcpip.FullAddress, proto tcpip.NetworkProtocolNumber) (*nameListener, error) {
	l := &nameListener{g: g, queue: new(waiter.Queue)}
	var err tcpip.Error
	if l.ep, err = g.net.NewEndpoint(tcp.ProtocolNumber, proto, l.queue); err != nil {
		return nil, fmt.Errorf("gateway: name server: %w", plain(err))
	}
	if err = l.ep.Bind(at); err == nil {
		err = l.ep.Listen(nameBacklog)
	}
	if err != nil {
		l.ep.Close()
		return nil, fmt.Errorf("gateway: name server: %w", plain(err))
	}
	return l, nil
}

// accept waits for the next connection; nil: the gateway ends.
func (l *nameListener) accept() (tcpip.Endpoint, *waiter.Queue) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.queue.EventRegister(&entry)
	defer l.queue.EventUnregister(&entry)
	for {
		ep, queue, err := l.ep.Accept(nil)
		if err == nil {
			return ep, queue
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return nil, nil
		}
		select {
		case <-readable:
		case <-l.g.ctx.Done():
			return nil, nil
		}
	}
}

// serve answers connections, a bounded number at once.
func (l *nameListener) serve(conns, workers chan struct{}) {
	defer l.ep.Close()
	for {
		ep, queue := l.accept()
		if ep == nil {
			return
		}
		select {
		case conns <- struct{}{}:
			l.g.loops.Go(func() {
				defer func() { <-conns }()
				l.g.serveConn(ep, queue, workers)
			})
		default:
			l.g.shed.Add(1)
			ep.Abort()
		}
	}
}

// serveConn answers the questions on one connection. It keeps its place until the
// sandbox has all answers, or has had the time for it.
func (g *Gateway) serveConn(ep tcpip.Endpoint, queue *waiter.Queue, workers chan struct{}) {
	narrow(ep)
	c := gonet.NewTCPConn(queue, ep)
	defer c.Close()
	for range maxOnNameConn {
		if c.SetDeadline(time.Now().Add(nameConnIdle)) != nil {
			break
		}
		msg, err := readFrame(c, maxQuestion)
		if err != nil || !g.take(workers) {
			break
		}
		reply := g.answer(msg, true)
		<-workers
		if reply == nil || writeFrame(c, reply) != nil {
			break
		}
	}
	// An error means that the sandbox has closed it already.
	_ = c.CloseWrite()
	g.settle(ep)
}
