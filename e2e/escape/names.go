package escape

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is the runner's name server. public.test is the world's one server; a
// name that nobody has set does not exist.
type Names struct {
	mu    sync.Mutex
	zone  map[string]func() []string
	asked []string
}

// Set makes a name mean addresses. The function is called for each question, so
// that a name can mean one thing first and another next.
func (n *Names) Set(name string, addresses func() []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone[strings.ToLower(name)] = addresses
}

// Asked are the names asked for so far, in lower case.
func (n *Names) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func serveNames(t testing.TB, w *World) *Names {
	t.Helper()
	n := &Names{zone: map[string]func() []string{}}
	n.Set("public.test", func() []string { return []string{PublicIPv4, PublicIPv6} })
	var c net.PacketConn
	var err error
	w.In(func() { c, err = net.ListenPacket("udp", resolverIPv4+":53") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := n.answer(buf[:size]); reply != nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
	return n
}

func (n *Names) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	n.mu.Lock()
	n.asked = append(n.asked, name)
	addresses := n.zone[name]
	n.mu.Unlock()
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if addresses == nil {
		m.RCode = dnsmessage.RCodeNameError
	} else {
		m.Answers = resources(q, addresses())
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}

// resources are those of the addresses that the question's type asks for.
func resources(q dnsmessage.Question, addresses []string) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	for _, text := range addresses {
		a := netip.MustParseAddr(text)
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && !a.Is4():
			out = append(out, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return out
}
