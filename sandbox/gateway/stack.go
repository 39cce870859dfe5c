package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// nic is the number of the stack's only interface.
const nic tcpip.NICID = 1

// timeWait keeps the port of a closed connection for a moment. The link loses
// and reorders nothing for longer.
const timeWait = tcpip.TCPTimeWaitTimeoutOption(1e9)

// newStack makes a stack that takes every packet as its own, whatever address
// it is for, and answers from that address.
func (g *Gateway) newStack(mtu int) (*stack.Stack, error) {
	// The stack would print what a hostile sandbox makes it see.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol, arp.NewProtocol,
			// The sandbox is no router: its advertisements change nothing.
			ipv6.NewProtocolWithOptions(ipv6.Options{}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	link, err := g.openLink(mtu)
	if err != nil {
		return nil, fmt.Errorf("gateway: link: %w", err)
	}
	for _, set := range []func() tcpip.Error{
		func() tcpip.Error { return bound(s, g.limits.Buffer) },
		func() tcpip.Error { return s.CreateNICWithOptions(nic, newDoor(g, link), stack.NICOptions{}) },
		func() tcpip.Error { return s.SetPromiscuousMode(nic, true) },
		func() tcpip.Error { return s.SetSpoofing(nic, true) },
		func() tcpip.Error { return address(s, ipv4.ProtocolNumber, GatewayIPv4, SandboxIPv4) },
		func() tcpip.Error { return address(s, ipv6.ProtocolNumber, GatewayIPv6, SandboxIPv6) },
	} {
		if err := set(); err != nil {
			return nil, fmt.Errorf("gateway: stack: %w", plain(err))
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	forward := tcp.NewForwarder(s, g.limits.Buffer, g.limits.HalfOpen, g.connect)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, g.paced(forward.HandlePacket))
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, g.datagram).HandlePacket)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber4, g.echo4)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber6, g.echo6)
	return s, nil
}

// openLink begins to use the packet socket. gVisor makes an event descriptor for
// it that is not closed on exec: no process that starts now may have it.
func (g *Gateway) openLink(mtu int) (stack.LinkEndpoint, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	link, err := fdbased.New(&fdbased.Options{
		FDs: []int{int(g.link.Fd())}, MTU: uint32(mtu), EthernetHeader: true, Address: tcpip.LinkAddress(gatewayMAC()),
		PacketDispatchMode: fdbased.RecvMMsg,
		// The link is memory: nothing changes on it, so no sum is checked. They are
		// made for whoever checks at the other end.
		RXChecksumOffload: true,
	})
	if err != nil {
		return nil, err
	}
	return link, CloseOnExec(firstExtraFD)
}

// bound sets the sizes of TCP's buffers and turns on what makes it fast.
func bound(s *stack.Stack, size int) tcpip.Error {
	recv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: size, Max: size}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: size, Max: size}
	sack, wait := tcpip.TCPSACKEnabled(true), timeWait
	for _, o := range []tcpip.SettableTransportProtocolOption{&recv, &send, &sack, &wait} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	return nil
}

// address gives the stack its own address and says where the sandbox is, so
// that it never has to ask.
func address(s *stack.Stack, proto tcpip.NetworkProtocolNumber, own, sandbox netip.Addr) tcpip.Error {
	bits := linkBits4
	if own.Is6() {
		bits = linkBits6
	}
	err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: guest(own), PrefixLen: bits},
	}, stack.AddressProperties{})
	if err != nil {
		return err
	}
	return s.AddStaticNeighbor(nic, proto, guest(sandbox), tcpip.LinkAddress(sandboxMAC()))
}

func gatewayMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'k', 'b', 'u', 0, 1} }
func sandboxMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 'k', 'b', 'u', 0, 2} }

// guest and host turn addresses into the stack's form and back.
func guest(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func host(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice()) // it has 4 or 16 bytes
	return addr
}

// target is where a flow that reached the stack wants to go.
func target(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(host(id.LocalAddress), id.LocalPort)
}

// plain is an error of the stack as an ordinary one.
func plain(err tcpip.Error) error { return errors.New(err.String()) }
