package gateway

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer serves a zone of addresses over UDP and TCP, on one port. A value
// that is no address is an alias.
func nameServer(t testing.TB, zone map[string][]string) netip.AddrPort {
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
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if reply := zoneAnswer(zone, buf[:n], 1232); reply != nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					msg, err := readFrame(c, 2000)
					if err != nil || writeFrame(c, zoneAnswer(zone, msg, 1<<16)) != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func zoneAnswer(zone map[string][]string, msg []byte, limit int) []byte {
	var m dnsmessage.Message
	if m.Unpack(msg) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	values, known := zone[lower(q.Name)+"."]
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	m.Answers = records(zone, q.Name, q.Type, values)
	b, err := m.Pack()
	if err == nil && len(b) > limit {
		m.Truncated, m.Answers = true, nil
		b, err = m.Pack()
	}
	if err != nil {
		return nil
	}
	return b
}

func records(zone map[string][]string, name dnsmessage.Name, kind dnsmessage.Type, values []string) (out []dnsmessage.Resource) {
	for _, v := range values {
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1}
		a, err := netip.ParseAddr(v)
		switch {
		case err != nil:
			h.Type = dnsmessage.TypeCNAME
			to := dnsmessage.MustNewName(v)
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: to}})
			out = append(out, records(zone, to, kind, zone[v])...)
		case a.Is4() && kind == dnsmessage.TypeA:
			h.Type = dnsmessage.TypeA
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && kind == dnsmessage.TypeAAAA:
			h.Type = dnsmessage.TypeAAAA
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return out
}
