package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort = 53
	// maxResolvers and the times are those of the C library, with a shorter wait.
	maxResolvers   = 3
	resolverRounds = 2
	resolverWait   = 3 * time.Second
)

// ParseResolvers returns the name servers of a resolv.conf. Without any it is
// the one on the machine itself, as for the C library.
func ParseResolvers(conf []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for _, f := range confLines(conf) {
		if f[0] != "nameserver" || len(f) < 2 || len(out) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if len(out) == 0 {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort))
	}
	return out
}

// maxSearch is the C library's limit of search domains before it had none.
const maxSearch = 6

// ParseSearch returns the search domains of a resolv.conf, in lower case without
// a dot at the end. The last line about them counts.
func ParseSearch(conf []byte) (out []string) {
	for _, f := range confLines(conf) {
		if f[0] != "search" && f[0] != "domain" {
			continue
		}
		out = nil
		for _, d := range f[1:min(len(f), maxSearch+1)] {
			if d = strings.ToLower(strings.Trim(d, ".")); d != "" {
				out = append(out, d)
			}
		}
	}
	return out
}

// ParseHosts returns the names of a hosts file. That of the machine itself are
// left out: localhost is each sandbox's own.
func ParseHosts(file []byte) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, f := range confLines(file) {
		a, err := netip.ParseAddr(f[0])
		if err != nil || a.Zone() != "" {
			continue
		}
		for _, n := range f[1:] {
			if n[0] == '#' {
				break
			}
			if n = strings.ToLower(strings.TrimSuffix(n, ".")); n != "localhost" && !strings.HasPrefix(n, "ip6-") {
				out[n] = append(out[n], a.Unmap())
			}
		}
	}
	return out
}

// SandboxResolvConf is the resolv.conf of a sandbox whose host has conf: the
// gateway is the name server, and the search list stays.
func SandboxResolvConf(conf []byte) []byte {
	var b bytes.Buffer
	for _, f := range confLines(conf) {
		switch f[0] {
		case "search", "domain":
			b.WriteString(strings.Join(f, " ") + "\n")
		case "options":
			for _, o := range f[1:] {
				if strings.HasPrefix(o, "ndots:") {
					b.WriteString("options " + o + "\n")
				}
			}
		}
	}
	b.WriteString("nameserver " + GatewayIPv4.String() + "\n")
	return b.Bytes()
}

// confLines splits the lines that say something into words.
func confLines(conf []byte) (out [][]string) {
	s := bufio.NewScanner(bytes.NewReader(conf))
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) > 0 && f[0][0] != '#' && f[0][0] != ';' {
			out = append(out, f)
		}
	}
	return out
}

// resolver asks the host's name servers.
type resolver struct {
	servers []netip.AddrPort
}

var errNoResolver = errors.New("the host has no name server")

// ask asks one server after the other until one answers. It returns who did.
func (r *resolver) ask(ctx context.Context, q question, f filter) (a answer, from netip.AddrPort, err error) {
	err = errNoResolver
	for range resolverRounds {
		for _, s := range r.servers {
			if ctx.Err() != nil {
				return answer{}, s, ctx.Err()
			}
			from = s
			if a, err = askServer(ctx, s, q, f); err == nil && a.code != dnsmessage.RCodeServerFailure {
				return a, from, nil
			}
		}
	}
	return a, from, err
}

// askServer asks over UDP, and over TCP if the answer is too large for that.
func askServer(ctx context.Context, s netip.AddrPort, q question, f filter) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, resolverWait)
	defer cancel()
	var id [2]byte
	rand.Read(id[:])
	msg, err := pack(binary.BigEndian.Uint16(id[:]), q)
	if err != nil {
		return answer{}, err
	}
	a, err := exchangeUDP(ctx, s, msg, q, f)
	if err == nil && a.truncated {
		return exchangeTCP(ctx, s, msg, q, f)
	}
	return a, err
}

// pack makes the question anew: nothing of the sandbox's message goes out but
// name, type and class.
func pack(id uint16, q question) ([]byte, error) {
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(1232, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q.q},
		Additionals: []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}},
	}
	return m.Pack()
}

func dialServer(ctx context.Context, network string, s netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, s.String())
	if err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		err = c.SetDeadline(t)
	}
	return c, err
}

// endWith ends what waits on c when ctx ends, until the function that it returns
// is called.
func endWith(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) }) // else it ends by its own deadline
}

func exchangeUDP(ctx context.Context, s netip.AddrPort, msg []byte, q question, f filter) (answer, error) {
	c, err := dialServer(ctx, "udp", s)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	defer endWith(ctx, c)()
	if _, err := c.Write(msg); err != nil {
		return answer{}, err
	}
	buf := make([]byte, mostAnswer)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return answer{}, err
		}
		// What is no answer to this question may be forged: the real one may follow.
		if a, err := parseAnswer(buf[:n], binary.BigEndian.Uint16(msg), q, f); err == nil {
			return a, nil
		}
	}
}

func exchangeTCP(ctx context.Context, s netip.AddrPort, msg []byte, q question, f filter) (answer, error) {
	c, err := dialServer(ctx, "tcp", s)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	defer endWith(ctx, c)()
	if err := writeFrame(c, msg); err != nil {
		return answer{}, err
	}
	buf, err := readFrame(c, 1<<16-1)
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(buf, binary.BigEndian.Uint16(msg), q, f)
	if err == nil && a.truncated {
		return answer{}, errAnswer
	}
	return a, err
}

// writeFrame and readFrame are DNS over TCP: the length in two bytes, then the
// message.
func writeFrame(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

func readFrame(r io.Reader, limit int) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > limit {
		return nil, errNoQuestion
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
