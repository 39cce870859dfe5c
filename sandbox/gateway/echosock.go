package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// echoSocket is a socket of the host that sends echo requests to one address.
type echoSocket struct {
	net.Conn
	raw   bool   // it gets all of the address's messages, and sends ours as they are
	ident uint16 // of a raw socket's requests
}

// openEcho opens a ping socket, which an ordinary user may have where
// net.ipv4.ping_group_range says so, or else a raw one, which root may.
func openEcho(to netip.Addr) (*echoSocket, error) {
	c, err := pingSocket(to)
	if err == nil {
		return &echoSocket{Conn: c}, nil
	}
	network := "ip4:icmp"
	if to.Is6() {
		network = "ip6:ipv6-icmp"
	}
	raw, rawErr := net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice()})
	if rawErr != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			err = errors.New("this user may not ping (net.ipv4.ping_group_range)")
		}
		return nil, err
	}
	var id [2]byte
	rand.Read(id[:])
	return &echoSocket{Conn: raw, raw: true, ident: binary.BigEndian.Uint16(id[:])}, nil
}

func pingSocket(to netip.Addr) (net.Conn, error) {
	dom, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var addr unix.Sockaddr = &unix.SockaddrInet4{}
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		dom, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		addr = &unix.SockaddrInet6{Addr: to.As16()}
	}
	fd, err := unix.Socket(dom, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	if err := unix.Connect(fd, addr); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	return c, nil
}

// send sends one request.
func (s *echoSocket) send(fam family, seq uint16, payload []byte) error {
	msg := make([]byte, icmpHeader+len(payload))
	msg[0] = fam.request
	binary.BigEndian.PutUint16(msg[4:], s.ident)
	binary.BigEndian.PutUint16(msg[6:], seq)
	copy(msg[icmpHeader:], payload)
	if fam.net == ipv4.ProtocolNumber { // the kernel sums IPv6's in all cases
		header.ICMPv4(msg).SetChecksum(header.ICMPv4Checksum(msg[:icmpHeader], checksum.Checksum(payload, 0)))
	}
	_, err := s.Write(msg)
	return err
}

// read reads one message, without an IP header.
func (s *echoSocket) read(b []byte) (int, error) {
	if c, ok := s.Conn.(*net.IPConn); ok {
		n, _, err := c.ReadFromIP(b)
		return n, err
	}
	n, err := s.Read(b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// isReply tells whether a message answers a request of this socket.
func (s *echoSocket) isReply(fam family, msg []byte) bool {
	return len(msg) >= icmpHeader && msg[0] == fam.reply && (!s.raw || binary.BigEndian.Uint16(msg[4:]) == s.ident)
}
