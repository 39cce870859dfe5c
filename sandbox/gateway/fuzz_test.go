package gateway

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

func example(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	b, err := pack(7, question{q: dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}})
	must(t, err)
	return b
}

// FuzzQuestion reads what a sandbox may ask: whatever it is, the reply can be
// packed, and what goes out to the name server is a question of the same name.
func FuzzQuestion(f *testing.F) {
	f.Add(example(f, "a.example.", dnsmessage.TypeA))
	f.Add(example(f, ".", dnsmessage.TypeNS))
	f.Add([]byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, msg []byte) {
		q, code, err := parseQuestion(msg)
		if err != nil {
			return
		}
		reply, err := q.reply(answer{code: code}, q.size)
		if err != nil {
			t.Fatalf("reply: %v", err)
		}
		var p dnsmessage.Parser
		if h, err := p.Start(reply); err != nil || h.ID != q.id || !h.Response {
			t.Fatalf("%+v, %v", h, err)
		}
		if code != dnsmessage.RCodeSuccess {
			return
		}
		out, err := pack(1, q)
		if err != nil {
			t.Fatal(err)
		}
		again, code, err := parseQuestion(out)
		if err != nil || code != dnsmessage.RCodeSuccess || again.name() != q.name() || again.q.Type != q.q.Type {
			t.Fatalf("%+v became %+v: %v %v", q, again, code, err)
		}
	})
}

// FuzzAnswer reads what a name server, or a forger, may answer: whatever it
// is, no denied address is in the reply.
func FuzzAnswer(f *testing.F) {
	q := question{id: 1, size: mostAnswer, q: dnsmessage.Question{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
	zone := map[string][]string{"a.example.": {"10.0.0.1", "1.1.1.1", "b.example."}, "b.example.": {"169.254.169.254", "a.example."}}
	delete(zone, "b.example.") // an alias of an alias would go round
	f.Add(zoneAnswer(zone, example(f, "a.example.", dnsmessage.TypeA), 4096))
	f.Add(zoneAnswer(zone, example(f, "none.example.", dnsmessage.TypeA), 4096))
	judge := filter{
		address: func(a netip.Addr) string {
			if v := policy.RunEgress().Judge(policy.Destination{Addr: a}); !v.Allowed {
				return v.Reason
			}
			return ""
		},
		alias: func(string) string { return "" },
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := parseAnswer(msg, 7, q, judge)
		if err != nil {
			return
		}
		reply, err := q.reply(a, maxAnswerOnTCP)
		if err != nil {
			return // answered as a failure
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("reply: %v", err)
		}
		for _, text := range addresses(m) {
			if addr, err := netip.ParseAddr(text); err == nil && judge.address(addr) != "" {
				t.Fatalf("%s is in the reply", addr)
			}
		}
	})
}

// FuzzFrames gives the stack whatever a sandbox may send. Nothing may break,
// and nothing may go out: the policy denies everything.
func FuzzFrames(f *testing.F) {
	for _, p := range [][]byte{
		packet4(header.TCPProtocolNumber, GatewayIPv4, []byte{0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}),
		packet4(header.UDPProtocolNumber, GatewayIPv4, append([]byte{4, 0, 0, 53, 0, 37, 0, 0}, example(f, "a.example.", 1)...)),
		packet4(header.ICMPv4ProtocolNumber, netip.MustParseAddr("1.1.1.1"), []byte{8, 0, 0, 0, 0, 1, 0, 1}),
		packet4(132, netip.MustParseAddr("1.1.1.1"), []byte{1, 2, 3, 4, 5, 6, 7, 8}),
		packet6(header.TCPProtocolNumber, netip.MustParseAddr("2606::1"), []byte{0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}),
		packet6(header.ICMPv6ProtocolNumber, netip.MustParseAddr("ff02::1"), []byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}),
		packet6(0, netip.MustParseAddr("2606::1"), []byte{58, 0, 5, 2, 0, 0, 1, 0, 128, 0, 0, 0, 0, 1, 0, 1}),
		packet6(44, netip.MustParseAddr("2606::1"), []byte{58, 0, 0, 1, 0, 0, 0, 1, 128, 0, 0, 0, 0, 1, 0, 1}),
		{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 'k', 'b', 'u', 0, 2, 192, 0, 0, 2, 0, 0, 0, 0, 0, 0, 192, 0, 0, 1},
	} {
		f.Add(p)
	}
	ours, theirs := socketPair(f)
	g, err := New(Config{Link: ours, Egress: policy.Egress{}, Sink: func(r Record) {
		if r.Verdict == Allowed && r.Protocol != ProtocolDNS {
			panic(r)
		}
	}, Limits: Limits{Linger: time.Millisecond}})
	must(f, err)
	f.Cleanup(func() {
		if err := g.Close(); err != nil {
			f.Error(err)
		}
		if c := g.Counters(); c.Flows != c.Records {
			f.Errorf("%+v", c)
		}
		theirs.Close()
	})
	drain := make([]byte, 1<<16)
	f.Fuzz(func(_ *testing.T, p []byte) {
		frame := append(append(append([]byte{}, gatewayMAC()...), sandboxMAC()...), p...)
		_, _ = unix.Write(int(theirs.Fd()), frame)
		for {
			if n, err := unix.Read(int(theirs.Fd()), drain); n <= 0 || err != nil {
				return
			}
		}
	})
}

// packet4 and packet6 are frames without their addresses.
func packet4(proto tcpip.TransportProtocolNumber, to netip.Addr, payload []byte) []byte {
	b := make([]byte, 2+header.IPv4MinimumSize, 2+header.IPv4MinimumSize+len(payload))
	b[0] = 0x08
	h := header.IPv4(b[2:])
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + len(payload)), TTL: 64, Protocol: uint8(proto), SrcAddr: guest(SandboxIPv4), DstAddr: guest(to),
	})
	h.SetChecksum(^h.CalculateChecksum())
	return append(b, payload...)
}

func packet6(next tcpip.TransportProtocolNumber, to netip.Addr, payload []byte) []byte {
	b := make([]byte, 2+header.IPv6MinimumSize, 2+header.IPv6MinimumSize+len(payload))
	b[0], b[1] = 0x86, 0xdd
	b[2] = 0x60
	h := header.IPv6(b[2:])
	h.SetPayloadLength(uint16(len(payload)))
	h.SetNextHeader(uint8(next))
	h.SetHopLimit(64)
	h.SetSourceAddress(guest(SandboxIPv6))
	h.SetDestinationAddress(guest(to))
	return append(b, payload...)
}
