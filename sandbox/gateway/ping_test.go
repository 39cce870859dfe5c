package gateway

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialPing opens a ping socket of the sandbox's stack.
func dialPing(s *stack.Stack, to netip.Addr, network tcpip.NetworkProtocolNumber, proto tcpip.TransportProtocolNumber) (net.Conn, error) {
	var queue waiter.Queue
	ep, err := s.NewEndpoint(proto, network, &queue)
	if err != nil {
		return nil, plain(err)
	}
	if err := ep.Connect(tcpip.FullAddress{NIC: nic, Addr: guest(to)}); err != nil {
		ep.Close()
		return nil, plain(err)
	}
	return gonet.NewUDPConn(&queue, ep), nil
}
