package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// rig is a gateway with a stack at the other end of its link, which plays the
// sandbox: no privilege is needed.
type rig struct {
	*Gateway
	guest *stack.Stack
	ports atomic.Int32 // used for UDP

	mu      sync.Mutex
	records []Record
}

const firstPort = 10000

// socketPair is a link in memory that keeps frames apart.
func socketPair(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		for _, o := range []int{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE} {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, socketBuffer)
		}
	}
	return os.NewFile(uintptr(fds[0]), "gateway"), os.NewFile(uintptr(fds[1]), "sandbox")
}

// newRig starts both ends. The configuration's link and sink are set here.
func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	ours, theirs := socketPair(t)
	// While this is open no end of the link is seen: of a socket pair, unlike a
	// packet socket, gVisor's link reads it for ever and cannot be stopped.
	open, err := unix.FcntlInt(ours.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	r := &rig{guest: guestStack(t, theirs)}
	c.Link = ours
	if c.Sink == nil {
		c.Sink = func(rec Record) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.records = append(r.records, rec)
		}
	}
	if r.Gateway, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.end(t)
		r.guest.Destroy()
		theirs.Close()
		unix.Close(open)
	})
	return r
}

// end closes the gateway and checks that every flow has its record.
func (r *rig) end(t testing.TB) []Record {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	c := r.Counters()
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Flows != c.Records || r.records != nil && c.Records != uint64(len(r.records)) {
		t.Errorf("%+v, and the sink has %d", c, len(r.records))
	}
	return r.records
}

func guestStack(t testing.TB, link *os.File) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	ep, err := fdbased.New(&fdbased.Options{
		FDs: []int{int(link.Fd())}, MTU: LinkMTU, EthernetHeader: true, Address: tcpip.LinkAddress(sandboxMAC()),
		PacketDispatchMode: fdbased.RecvMMsg, RXChecksumOffload: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err tcpip.Error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.CreateNIC(nic, ep))
	for own, bits := range map[netip.Addr]int{SandboxIPv4: linkBits4, SandboxIPv6: linkBits6} {
		must(s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol: network(own), AddressWithPrefix: tcpip.AddressWithPrefix{Address: guest(own), PrefixLen: bits},
		}, stack.AddressProperties{}))
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic, Gateway: guest(GatewayIPv4)},
		{Destination: header.IPv6EmptySubnet, NIC: nic, Gateway: guest(GatewayIPv6)},
	})
	return s
}

func network(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func full(to netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: guest(to.Addr()), Port: to.Port()}
}

// dial connects from the sandbox.
func (r *rig) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return gonet.DialContextTCP(ctx, r.guest, full(to), network(to.Addr()))
}

func (r *rig) dialUDP(t testing.TB, to netip.AddrPort) *gonet.UDPConn {
	t.Helper()
	// A port that was used before would be an old flow's.
	own, a := SandboxIPv4, full(to)
	if to.Addr().Is6() {
		own = SandboxIPv6
	}
	from := full(netip.AddrPortFrom(own, uint16(firstPort+r.ports.Add(1))))
	c, err := gonet.DialUDP(r.guest, &from, &a, network(to.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ping sends one echo request and returns the type of what comes back.
func (r *rig) ping(t testing.TB, to netip.Addr) (reply bool, err error) {
	t.Helper()
	kind, proto, request, want := network(to), icmp.ProtocolNumber4, byte(header.ICMPv4Echo), byte(header.ICMPv4EchoReply)
	if to.Is6() {
		proto, request, want = icmp.ProtocolNumber6, byte(header.ICMPv6EchoRequest), byte(header.ICMPv6EchoReply)
	}
	c, derr := dialPing(r.guest, to, kind, proto)
	if derr != nil {
		t.Fatal(derr)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{request, 0, 0, 0, 0, 0, 0, 7, 'h', 'i'}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return err == nil && n == 10 && buf[0] == want && string(buf[8:10]) == "hi", err
}

// echoServer answers on TCP with what it gets, until the end.
func echoServer(t testing.TB, at string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Skipf("this machine cannot listen on %s: %v", at, err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// udpEcho is the same for UDP.
func udpEcho(t testing.TB, at string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Skipf("this machine cannot listen on %s: %v", at, err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo(buf[:n], from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// allowing is the default policy with rules.
func allowing(t testing.TB, allow ...string) policy.Egress {
	t.Helper()
	e := policy.RunEgress()
	for _, a := range allow {
		rules, err := policy.ParseAllow(a)
		if err != nil {
			t.Fatal(err)
		}
		e.Allow = append(e.Allow, rules...)
	}
	return e
}

func through(to netip.AddrPort) netip.AddrPort {
	if to.Addr().Is6() {
		return netip.AddrPortFrom(GatewayIPv6, to.Port())
	}
	return netip.AddrPortFrom(GatewayIPv4, to.Port())
}
