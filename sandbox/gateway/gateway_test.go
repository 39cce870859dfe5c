package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

func TestTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			server := echoServer(t, at)
			r := newRig(t, Config{Egress: allowing(t, server.String()), Role: "build"})
			r.SetSteps([]string{"RUN make", "RUN test"})
			c, err := r.dial(through(server))
			if err != nil {
				t.Fatal(err)
			}
			data := make([]byte, 3<<20)
			rand.NewChaCha8([32]byte{1}).Read(data)
			go func() {
				_, _ = c.Write(data)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
				t.Fatalf("%d of %d bytes came back: %v", len(got), len(data), err)
			}
			c.Close()
			recs := r.end(t)
			if len(recs) != 1 {
				t.Fatalf("records: %+v", recs)
			}
			rec := recs[0]
			if rec.Verdict != Allowed || rec.In != int64(len(data)) || rec.Out != int64(len(data)) || rec.Role != "build" ||
				!slices.Equal(rec.Steps, []string{"RUN make", "RUN test"}) || rec.Protocol != "tcp" || rec.Address != server.Addr() || rec.Port != server.Port() || rec.Time.IsZero() {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// TestTCPRefusals: what is denied, and what the host cannot connect to, is
// reset at once.
func TestTCPRefusals(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().(*net.TCPAddr).AddrPort()
	closed.Close()
	r := newRig(t, Config{Egress: allowing(t, nobody.String(), "192.168.77.0/24:1")})
	tries := map[string]Record{
		through(server).String():    {Verdict: Denied, Reason: "loopback", Address: server.Addr()},
		through(nobody).String():    {Verdict: Failed, Reason: "connection refused", Address: nobody.Addr()},
		"10.1.2.3:80":               {Verdict: Denied, Reason: "private (RFC 1918)"},
		"192.168.77.1:2":            {Verdict: Denied, Reason: "private (RFC 1918)"},
		"169.254.169.254:80":        {Verdict: Denied, Reason: "cloud metadata"},
		"192.0.0.3:80":              {Verdict: Denied, Reason: "protocol assignments, the link itself among them"},
		"[fd00:ec2::254]:80":        {Verdict: Denied, Reason: "cloud metadata (AWS)"},
		"[64:ff9b::10.1.2.3]:80":    {Verdict: Denied, Reason: "private (RFC 1918)"},
		"[2002:a9fe:a9fe::1]:80":    {Verdict: Denied, Reason: "6to4"},
		"[::ffff:0:10.1.2.3]:80":    {Verdict: Denied, Reason: "IPv4-translated"},
		"[fec0::1]:80":              {Verdict: Denied, Reason: "site-local, withdrawn"},
		"[fd6b:6275:696c:6400::]:1": {Verdict: Denied, Reason: "unique local"},
	}
	for to := range tries {
		begin := time.Now()
		conn, err := r.dial(netip.MustParseAddrPort(to))
		if err == nil {
			t.Errorf("%s: connected", to)
			conn.Close()
		} else if took := time.Since(begin); took > 5*time.Second || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v after %v", to, err, took)
		}
	}
	recs := r.end(t)
	if len(recs) != len(tries) {
		t.Errorf("%d records for %d flows", len(recs), len(tries))
	}
	for to, want := range tries {
		if !want.Address.IsValid() {
			want.Address = netip.MustParseAddrPort(to).Addr()
		}
		if !slices.ContainsFunc(recs, func(r Record) bool {
			return r.Verdict == want.Verdict && r.Reason == want.Reason && r.Address == want.Address && r.Port == netip.MustParseAddrPort(to).Port()
		}) {
			t.Errorf("no record like %+v in %+v", want, recs)
		}
	}
}

// TestOwnAddress: the host's own address is reached only if a rule says so.
func TestOwnAddress(t *testing.T) {
	own := hostAddress(t)
	server := echoServer(t, netip.AddrPortFrom(own, 0).String())
	for _, c := range []struct {
		allow string
		want  bool
	}{{"1.1.1.1", false}, {"0.0.0.0/0", false}, {server.Addr().String(), true}, {server.String(), true}} {
		r := newRig(t, Config{Egress: allowing(t, c.allow)})
		conn, err := r.dial(server)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.allow, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestOwnJudged: a public address that the host has is as closed as loopback,
// and so is every one when the host's cannot be read.
func TestOwnJudged(t *testing.T) {
	r := newRig(t, Config{Egress: policy.RunEgress()})
	to := netip.MustParseAddrPort("8.8.8.8:22")
	for _, c := range []struct {
		list []net.Addr
		err  error
		want bool
	}{
		{nil, nil, true},
		{[]net.Addr{&net.IPNet{IP: net.IPv4(8, 8, 8, 8), Mask: net.CIDRMask(24, 32)}}, nil, false},
		{[]net.Addr{&net.IPNet{IP: net.IPv4(8, 8, 8, 9), Mask: net.CIDRMask(24, 32)}}, nil, true},
		{nil, io.ErrUnexpectedEOF, false},
	} {
		r.own = own{list: func() ([]net.Addr, error) { return c.list, c.err }}
		if _, _, v := r.judge(to); v.Allowed != c.want {
			t.Errorf("%v, %v: %+v", c.list, c.err, v)
		}
	}
}

// hostAddress is an address of this machine that is not loopback.
func hostAddress(t testing.TB) netip.Addr {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Skip("this machine has no address but loopback")
	return netip.Addr{}
}

// TestReset: a connection that fails on one side fails on the other.
func TestReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := l.Addr().(*net.TCPAddr).AddrPort()
	r := newRig(t, Config{Egress: allowing(t, server.String())})
	c, err := r.dial(through(server))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	reset(conn.(*net.TCPConn))
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after a reset: %v", err)
	}
	c.Close()

	c, err = r.dial(through(server))
	must(t, err)
	conn, err = l.Accept()
	must(t, err)
	_, err = c.Write([]byte("x"))
	must(t, err)
	_, err = conn.Read(make([]byte, 1))
	must(t, err)
	r.guestAbort(t)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset of the sandbox: %v", err)
	}
	c.Close()
}

// guestAbort resets every connection of the sandbox.
func (r *rig) guestAbort(t *testing.T) {
	t.Helper()
	for _, e := range r.guest.RegisteredEndpoints() {
		e.Abort()
	}
}

func TestUDP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		server := udpEcho(t, at)
		r := newRig(t, Config{Egress: allowing(t, server.String()), Limits: Limits{UDPIdle: time.Second}})
		c := r.dialUDP(t, through(server))
		for _, size := range []int{1, 1400, 30000} {
			msg := bytes.Repeat([]byte{7}, size)
			if _, err := c.Write(msg); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], msg) {
				t.Fatalf("%d bytes: %d, %v", size, n, err)
			}
		}
		// The flow ends by itself, and has one record.
		for begin := time.Now(); r.Counters().Records == 0; time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("the flow does not end")
			}
		}
		recs := r.end(t)
		if len(recs) != 1 || recs[0].Verdict != Allowed || recs[0].In != 31401 || recs[0].Out != 31401 || recs[0].Protocol != "udp" {
			t.Errorf("records %+v", recs)
		}
	}
}

// TestUDPDenied: the sandbox hears that nobody is there, and many datagrams of
// one flow are one record.
func TestUDPDenied(t *testing.T) {
	for _, to := range []string{"10.1.2.3:99", "[fd00::1]:99"} {
		r := newRig(t, Config{Egress: policy.RunEgress()})
		c := r.dialUDP(t, netip.MustParseAddrPort(to))
		var heard error
		for begin := time.Now(); heard == nil && time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			_, heard = c.Write([]byte("x")) // one fails with the error of one before
		}
		if heard == nil || !strings.Contains(heard.Error(), "refused") {
			t.Errorf("%s: %v", to, heard)
		}
		for range 50 {
			_, _ = c.Write([]byte("x"))
			time.Sleep(5 * time.Millisecond)
		}
		if recs := r.end(t); len(recs) != 1 || recs[0].Verdict != Denied || recs[0].Address.String() != netip.MustParseAddrPort(to).Addr().String() {
			t.Errorf("%s: records %+v", to, recs)
		}
	}
}

func TestPing(t *testing.T) {
	own := hostAddress(t)
	may := os.Geteuid() == 0 || mayPing(t, os.Getegid())
	r := newRig(t, Config{Egress: allowing(t, own.String())})
	for to, want := range map[string]bool{own.String(): may, GatewayIPv4.String(): true, GatewayIPv6.String(): true, "10.1.2.3": false, "fd00::9": false} {
		reply, err := r.ping(t, netip.MustParseAddr(to))
		if reply != want {
			t.Errorf("%s: %v, %v", to, reply, err)
		}
	}
	recs := r.end(t)
	if len(recs) != 3 {
		t.Errorf("records %+v", recs)
	}
	for _, rec := range recs {
		want := Denied
		switch {
		case rec.Address == own && may:
			want = Allowed
		case rec.Address == own:
			want = Failed
		}
		if rec.Protocol != "icmp" || rec.Verdict != want {
			t.Errorf("record %+v", rec)
		}
	}
}
