package gateway

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// wire is a gateway whose other end the test writes frames to.
type wire struct {
	*rig
	t    testing.TB
	link *os.File
}

func newWire(t testing.TB, c Config) *wire {
	t.Helper()
	ours, theirs := socketPair(t)
	w := &wire{rig: &rig{}, t: t, link: theirs}
	c.Link = ours
	c.Sink = func(rec Record) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.records = append(w.records, rec)
	}
	var err error
	w.Gateway, err = New(c)
	must(t, err)
	t.Cleanup(func() { w.end(t); theirs.Close() })
	return w
}

// send sends a frame, and throws away what has come back.
func (w *wire) send(p []byte) {
	frame := append(append(append([]byte{}, gatewayMAC()...), sandboxMAC()...), p...)
	for {
		for buf := make([]byte, 1<<16); ; {
			if n, err := unix.Read(int(w.link.Fd()), buf); n <= 0 || err != nil {
				break
			}
		}
		if _, err := unix.Write(int(w.link.Fd()), frame); err != unix.EAGAIN {
			must(w.t, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// until waits for what the gateway does in its own time.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("never: " + what)
		}
	}
}

func syn(from, port uint16) []byte {
	b := make([]byte, header.TCPMinimumSize)
	header.TCP(b).Encode(&header.TCPFields{SrcPort: from, DstPort: port, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1 << 15})
	return b
}

// summed4 is an ICMP message with its sum.
func summed4(b ...byte) []byte {
	header.ICMPv4(b).SetChecksum(header.ICMPv4Checksum(b, 0))
	return b
}

// request6 is an echo request, which IPv6 takes only with its sum.
func request6(to netip.Addr) []byte {
	b := []byte{128, 0, 0, 0, 0, 1, 0, 1}
	header.ICMPv6(b).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: b, Src: guest(SandboxIPv6), Dst: guest(to)}))
	return b
}

// TestDoor: what is never forwarded is denied and recorded once, and what no
// honest sandbox sends is counted.
func TestDoor(t *testing.T) {
	udp := []byte{4, 0, 0, 99, 0, 9, 0, 0, 'x'}
	spoofed := packet4(header.UDPProtocolNumber, netip.MustParseAddr("1.1.1.1"), udp)
	copy(spoofed[2+12:], []byte{192, 168, 1, 1})
	spoofed6 := packet6(header.UDPProtocolNumber, netip.MustParseAddr("2606::1"), udp)
	spoofed6[2+8] = 0x26
	linkLocal := packet6(header.UDPProtocolNumber, netip.MustParseAddr("2606::1"), udp)
	copy(linkLocal[2+8:], []byte{0xfe, 0x80})
	for name, c := range map[string]struct {
		frame  []byte
		proto  string // of the record; "": none
		strays uint64
	}{
		"sctp":           {packet4(132, netip.MustParseAddr("1.1.1.1"), udp), "ip/132", 0},
		"sctp6":          {packet6(132, netip.MustParseAddr("2606::1"), udp), "ip/132", 0},
		"gre":            {packet4(47, netip.MustParseAddr("1.1.1.1"), udp), "ip/47", 0},
		"multicast":      {packet4(header.UDPProtocolNumber, netip.MustParseAddr("224.0.0.251"), udp), "udp", 0},
		"multicast echo": {packet4(header.ICMPv4ProtocolNumber, netip.MustParseAddr("224.0.0.1"), []byte{8, 0, 0, 0, 0, 1, 0, 1}), "icmp", 0},
		"echo":           {packet4(header.ICMPv4ProtocolNumber, netip.MustParseAddr("10.0.0.1"), summed4(8, 0, 0, 0, 0, 1, 0, 1)), "icmp", 0},
		"echo reply":     {packet4(header.ICMPv4ProtocolNumber, netip.MustParseAddr("10.0.0.1"), summed4(0, 0, 0, 0, 0, 1, 0, 1)), "", 0},
		"timestamp":      {packet4(header.ICMPv4ProtocolNumber, netip.MustParseAddr("10.0.0.1"), summed4(13, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)), "", 0},
		"hidden echo6":   {packet6(0, netip.MustParseAddr("fd00::1"), append([]byte{58, 0, 5, 2, 0, 0, 1, 0}, request6(netip.MustParseAddr("fd00::1"))...)), "icmp", 0},
		"broadcast":      {packet4(header.UDPProtocolNumber, netip.MustParseAddr("255.255.255.255"), udp), "udp", 0},
		"multicast6":     {packet6(header.UDPProtocolNumber, netip.MustParseAddr("ff02::fb"), udp), "udp", 0},
		"wide multicast": {packet6(header.UDPProtocolNumber, netip.MustParseAddr("ff0e::1"), udp), "udp", 0},
		"router":         {packet6(header.ICMPv6ProtocolNumber, netip.MustParseAddr("ff02::1"), []byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}), "", 0},
		"spoofed":        {spoofed, "", 20},
		"spoofed6":       {spoofed6, "", 20},
		"link-local out": {linkLocal, "", 20},
		"short":          {[]byte{8, 0, 0x45}, "", 20},
		"no IP":          {[]byte{0x88, 0xcc, 1, 2, 3, 4}, "", 20},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, Config{Egress: allowing(t)})
			for range 20 {
				w.send(c.frame)
			}
			w.send(packet4(131, netip.MustParseAddr("1.1.1.1"), udp)) // something to wait for
			want := uint64(1)
			if c.proto != "" {
				want = 2
			}
			until(t, "the last frame", func() bool { return w.Counters().Records >= want && w.Counters().Strays >= c.strays })
			recs := w.end(t)
			if n := w.Counters(); n.Strays != c.strays || n.Records != want {
				t.Errorf("%+v, want %d strays and %d records", n, c.strays, want)
			}
			for _, rec := range recs {
				if rec.Protocol != c.proto && rec.Protocol != "ip/131" || rec.Verdict != Denied {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// TestFlood: as many connection requests as a sandbox can send neither fill
// the memory nor the records.
func TestFlood(t *testing.T) {
	w := newWire(t, Config{Egress: policy.RunEgress(), Limits: Limits{Starts: 100}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	for i := range 50000 {
		w.send(packet4(header.TCPProtocolNumber, netip.MustParseAddr("10.0.0.1"), syn(uint16(i), uint16(i/60000+1))))
	}
	until(t, "shedding", func() bool { return w.Counters().Shed > 10000 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	c, most := w.Counters(), uint64(200+100*(time.Since(begin).Seconds()+1))
	if c.Flows == 0 || c.Flows > most {
		t.Errorf("%+v, at most %d flows were to be judged", c, most)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
}

// TestHalfOpen: a sandbox that never finishes its handshakes holds so many
// places and no more, and does not hold up the end.
func TestHalfOpen(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	w := newWire(t, Config{Egress: allowing(t, server.String()), Limits: Limits{HalfOpen: 10}})
	for i := range 500 {
		w.send(packet4(header.TCPProtocolNumber, GatewayIPv4, syn(uint16(1000+i), server.Port())))
	}
	until(t, "ten half-open connections", func() bool { return w.Counters().Flows >= 10 })
	time.Sleep(100 * time.Millisecond)
	if c := w.Counters(); c.Flows != 10 {
		t.Errorf("%+v", c)
	}
	begin := time.Now()
	w.end(t)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestTCPLimit: a connection over the limit waits for a place.
func TestTCPLimit(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	r := newRig(t, Config{Egress: allowing(t, server.String()), Limits: Limits{TCP: 2}})
	var open []io.Closer
	for range 2 {
		c, err := r.dial(through(server))
		must(t, err)
		open = append(open, c)
	}
	got := make(chan error, 1)
	go func() { got <- r.tryTCP(through(server)) }()
	until(t, "shedding", func() bool { return r.Counters().Shed > 0 })
	select {
	case err := <-got:
		t.Fatalf("a third connection: %v", err)
	default:
	}
	for _, c := range open {
		c.Close()
	}
	must(t, <-got)
}

// TestIdle: a connection on which nothing happens is broken off.
func TestIdle(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	r := newRig(t, Config{Egress: allowing(t, server.String()), Limits: Limits{TCPIdle: time.Second}})
	c, err := r.dial(through(server))
	must(t, err)
	defer c.Close()
	must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after a second: %v", err)
	}
	until(t, "a record", func() bool { return r.Counters().Records == 1 })
}

// TestSlowReader: what the sandbox does not read stays with the server.
func TestSlowReader(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		for err == nil {
			_, err = c.Write(make([]byte, 1<<16))
		}
	}()
	server := l.Addr().(*net.TCPAddr).AddrPort()
	r := newRig(t, Config{Egress: allowing(t, server.String())})
	c, err := r.dial(through(server))
	must(t, err)
	time.Sleep(time.Second)
	c.Close()
	recs := r.end(t)
	// The sandbox's own buffer counts as read: about 1 MB, and may grow to 4.
	if most := int64(6 << 20); len(recs) != 1 || recs[0].In == 0 || recs[0].In > most {
		t.Errorf("records %+v, want at most %d bytes in", recs, most)
	}
}

// TestLyingQuestions: questions over TCP whose length is a lie, and too many
// connections, end without an answer.
func TestLyingQuestions(t *testing.T) {
	r := newRig(t, Config{Egress: policy.RunEgress()})
	c, err := r.dial(netip.AddrPortFrom(GatewayIPv4, dnsPort))
	must(t, err)
	defer c.Close()
	_, err = c.Write(binary.BigEndian.AppendUint16(nil, 65535))
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	if n, err := c.Read(make([]byte, 10)); err == nil {
		t.Errorf("%d bytes of answer", n)
	}
}
