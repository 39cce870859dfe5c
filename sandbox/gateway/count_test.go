package gateway

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestCount is the counting oracle: as many records as flows were tried, of
// every kind, with a sink that is slower than the flows.
func TestCount(t *testing.T) {
	tcp, udp := echoServer(t, "127.0.0.1:0"), udpEcho(t, "127.0.0.1:0")
	names := nameServer(t, map[string][]string{"good.example.": {"1.1.1.1"}, "bad.example.": {"10.0.0.1"}})
	var got sync.Map
	r := newRig(t, Config{
		Egress: allowing(t, tcp.String(), udp.String()), Resolvers: []netip.AddrPort{names},
		Limits: Limits{Starts: 1e6, QuestionRate: 1e6},
		Sink: func(rec Record) {
			n, _ := got.LoadOrStore(rec.Protocol+" "+string(rec.Verdict), new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			time.Sleep(20 * time.Microsecond)
		},
	})
	nobody := netip.MustParseAddrPort("10.1.2.3:80")
	tries := []struct {
		kind string
		n    int
		try  func() error
	}{
		{"tcp allowed", 4000, func() error { return r.tryTCP(through(tcp)) }},
		{"tcp denied", 4000, func() error {
			if r.tryTCP(nobody) == nil {
				return fmt.Errorf("connected to %s", nobody)
			}
			return nil
		}},
		{"udp allowed", 300, func() error { return r.tryUDP(t, through(udp), time.Second) }},
		{"udp denied", 700, func() error {
			if r.tryUDP(t, nobody, 10*time.Millisecond) == nil {
				return fmt.Errorf("answer from %s", nobody)
			}
			return nil
		}},
		{"dns allowed", 600, func() error { return r.tryName(t, "good.example.", 1) }},
		{"dns denied", 400, func() error { return r.tryName(t, "bad.example.", 0) }},
	}
	total := 0
	var wg sync.WaitGroup
	for _, x := range tries {
		total += x.n
		var left atomic.Int64
		left.Store(int64(x.n))
		for range 8 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := x.try(); err != nil {
						t.Errorf("%s: %v", x.kind, err)
					}
				}
			})
		}
	}
	wg.Wait()
	r.end(t)
	for _, x := range tries {
		n, found := got.Load(x.kind)
		if !found || int(n.(*atomic.Int64).Load()) != x.n {
			t.Errorf("%s: %v records for %d flows", x.kind, n, x.n)
		}
	}
	if c := r.Counters(); total != 10000 || c.Flows != uint64(total) || c.Records != uint64(total) || c.Denied != 5100 {
		t.Errorf("%d tried: %+v", total, c)
	}
}

func (r *rig) tryTCP(to netip.AddrPort) error {
	c, err := r.dial(to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

// tryUDP asks until it hears something, again after wait: datagrams, and the answers
// that say that nobody is there, may be lost. One that is asked again while the answer
// is on its way may find the flow gone, and make another.
func (r *rig) tryUDP(t *testing.T, to netip.AddrPort, wait time.Duration) error {
	c := r.dialUDP(t, to)
	defer c.Close()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		must(t, c.SetReadDeadline(time.Now().Add(wait)))
		if _, err := c.Read(make([]byte, 10)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s says nothing", to)
}

// tryName asks for addresses and wants so many.
func (r *rig) tryName(t *testing.T, name string, want int) error {
	c := r.dialUDP(t, netip.AddrPortFrom(GatewayIPv4, dnsPort))
	defer c.Close()
	m, err := ask(c, name, dnsmessage.TypeA)
	if err == nil && len(m.Answers) != want {
		err = fmt.Errorf("%s has %v", name, m.Answers)
	}
	return err
}

// ask asks one question over UDP.
func ask(c io.ReadWriter, name string, kind dnsmessage.Type) (m dnsmessage.Message, err error) {
	m = dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 99, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		return m, err
	}
	if _, err := c.Write(b); err != nil {
		return m, err
	}
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		return m, err
	}
	m = dnsmessage.Message{}
	return m, m.Unpack(buf[:n])
}

// TestBackPressure: while the sink does not take anything, records wait, and
// none is lost.
func TestBackPressure(t *testing.T) {
	hold := make(chan struct{})
	var taken atomic.Int64
	r := newRig(t, Config{
		Egress: allowing(t), Limits: Limits{Starts: 1e6},
		Sink: func(Record) {
			<-hold
			taken.Add(1)
		},
	})
	const flows = 3 * recordQueue
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(flows)
	for range 32 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if r.tryTCP(netip.MustParseAddrPort("10.1.2.3:80")) == nil {
					t.Error("connected")
				}
			}
		})
	}
	time.Sleep(2 * time.Second)
	if c := r.Counters(); c.Records != 0 || c.Flows > recordQueue+2000 {
		t.Errorf("while nothing is taken: %+v", c)
	}
	close(hold)
	wg.Wait()
	r.end(t)
	if c := r.Counters(); c.Records != flows || taken.Load() != flows {
		t.Errorf("%d taken, %+v", taken.Load(), c)
	}
}
