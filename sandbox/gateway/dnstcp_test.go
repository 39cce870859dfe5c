package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// manyAddresses are an answer of some kilobytes.
func manyAddresses() []string {
	many := make([]string, 250)
	for i := range many {
		many[i] = fmt.Sprintf("8.8.%d.8", i)
	}
	return many
}

// unread asks over TCP for more than it has room for, and then sends what makes
// the gateway close.
func (r *rig) unread(t testing.TB) (net.Conn, error) {
	t.Helper()
	c, err := r.dial(netip.AddrPortFrom(GatewayIPv4, dnsPort))
	if err != nil {
		return nil, err
	}
	var m dnsmessage.Message
	m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("many.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
	b, err := m.Pack()
	must(t, err)
	for range 3 {
		if err := writeFrame(c, b); err != nil {
			return c, err
		}
	}
	_, err = c.Write([]byte{0xff, 0xff})
	return c, err
}

func smallReader(t testing.TB, r *rig) {
	t.Helper()
	small := tcpip.TCPReceiveBufferSizeRangeOption{Min: 1, Default: 4096, Max: 4096}
	if err := r.guest.SetTransportProtocolOption(tcp.ProtocolNumber, &small); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadAnswers: what a sandbox does not read is kept for no more
// connections than have a place, and for no longer than Linger.
func TestUnreadAnswers(t *testing.T) {
	server := nameServer(t, map[string][]string{"many.example.": manyAddresses()})
	r := newRig(t, Config{Egress: policy.RunEgress(), Resolvers: []netip.AddrPort{server}, Limits: Limits{Linger: 300 * time.Millisecond}})
	smallReader(t, r)
	own := len(r.net.RegisteredEndpoints())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range maxNameConns / 2 {
				_, _ = r.unread(t) // it may be shed; the connection stays open
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n := len(r.net.RegisteredEndpoints()) - own
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections are kept", n)
		}
	}
	if c := r.Counters(); c.Shed == 0 {
		t.Error("none was shed: too few connections for a test")
	}
	// There is place again, and who reads later has all.
	c, err := r.unread(t)
	must(t, err)
	time.Sleep(100 * time.Millisecond)
	for range 3 {
		if _, err := readFrame(c, maxAnswerOnTCP); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEndWhileAsking: a name server that does not answer does not hold up the end.
func TestEndWhileAsking(t *testing.T) {
	for _, truncated := range []bool{false, true} {
		asked := make(chan struct{}, 10)
		server := muteServer(t, truncated, asked)
		r := newRig(t, Config{Egress: policy.RunEgress(), Resolvers: []netip.AddrPort{server}})
		c := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
		defer c.Close()
		go func() { _, _ = ask(c, "a.example.", dnsmessage.TypeA) }()
		<-asked
		begin := time.Now()
		recs := r.end(t)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("truncated %v: the end took %v", truncated, took)
		}
		if len(recs) != 1 || recs[0].Verdict != Failed {
			t.Errorf("truncated %v: records %+v", truncated, recs)
		}
	}
}

// muteServer is a name server that takes questions and answers none, or answers
// over UDP that TCP has it and is mute there. It says when it has one.
func muteServer(t testing.TB, truncated bool, asked chan<- struct{}) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c, err := net.ListenPacket("udp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { l.Close(); c.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if !truncated {
				asked <- struct{}{}
				continue
			}
			_, _ = c.WriteTo(zoneAnswer(map[string][]string{"a.example.": manyAddresses()}, buf[:n], 512), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			if _, err := readFrame(c, 2000); err == nil {
				asked <- struct{}{}
			}
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
