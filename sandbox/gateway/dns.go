package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

const tableTTL = 60 // seconds, of answers from the host's table

// serveNames listens for questions on the gateway's own addresses.
func (g *Gateway) serveNames() error {
	workers := make(chan struct{}, g.limits.Questions)
	conns := make(chan struct{}, maxNameConns)
	for proto, own := range map[tcpip.NetworkProtocolNumber]netip.Addr{ipv4.ProtocolNumber: GatewayIPv4, ipv6.ProtocolNumber: GatewayIPv6} {
		at := tcpip.FullAddress{NIC: nic, Addr: guest(own), Port: dnsPort}
		udp, err := gonet.DialUDP(g.net, &at, nil, proto)
		if err != nil {
			return fmt.Errorf("gateway: name server: %w", err)
		}
		tcp, err := g.listenNames(at, proto)
		if err != nil {
			return err
		}
		g.loops.Go(func() { <-g.ctx.Done(); udp.Close() })
		g.loops.Go(func() { g.serveUDP(udp, workers) })
		g.loops.Go(func() { tcp.serve(conns, workers) })
	}
	return nil
}

// serveUDP answers questions, a bounded number at once. The others wait in the
// socket, and are lost when that is full.
func (g *Gateway) serveUDP(c *gonet.UDPConn, workers chan struct{}) {
	buf := make([]byte, maxQuestion+1)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if !g.take(workers) {
			return
		}
		msg := append([]byte(nil), buf[:n]...)
		g.loops.Go(func() {
			defer func() { <-workers }()
			if reply := g.answer(msg, false); reply != nil {
				_, _ = c.WriteTo(reply, from) // else it is lost, and asked again
			}
		})
	}
}

// take waits for a worker and for the rate.
func (g *Gateway) take(workers chan struct{}) bool {
	if g.questions.Wait(g.ctx) != nil {
		return false
	}
	select {
	case workers <- struct{}{}:
		return true
	case <-g.ctx.Done():
		return false
	}
}

// answer answers one message; nil: it deserves no answer. It makes one record.
func (g *Gateway) answer(msg []byte, overTCP bool) []byte {
	f := g.open(ProtocolDNS, Record{Verdict: Allowed})
	if f == nil {
		return nil
	}
	defer f.end()
	f.out.Add(int64(len(msg)))
	q, code, err := parseQuestion(msg)
	if err != nil {
		f.fail(err)
		return nil
	}
	a := answer{code: code}
	if q.q.Name.Length > 0 {
		f.rec.Name, f.rec.Type = q.name(), q.kind()
	}
	if code == dnsmessage.RCodeSuccess {
		a = g.resolve(f, q)
	} else {
		f.rec.Verdict, f.rec.Reason = Denied, "not a question that is passed on"
	}
	limit := q.size
	if overTCP {
		limit = maxAnswerOnTCP
	}
	reply, err := q.reply(a, limit)
	if err != nil {
		f.fail(err)
		reply, _ = q.reply(answer{code: dnsmessage.RCodeServerFailure}, limit) // without records it can be packed
	}
	f.rec.Code = codeText(reply)
	f.in.Add(int64(len(reply)))
	return reply
}

// resolve judges a question and asks it.
func (g *Gateway) resolve(f *flow, q question) answer {
	verdict := g.egress.JudgeName(g.forms(q.name())...)
	f.rec.Reason = verdict.Reason
	if !verdict.Allowed {
		f.rec.Verdict = Denied
		return answer{code: deniedName}
	}
	if q.hints() {
		f.rec.Reason = "answered as empty"
		return answer{}
	}
	if list, known := g.hosts[q.name()]; known {
		f.rec.Reason += ", by the host's table"
		return g.taken(f, g.fromTable(q, list))
	}
	a, from, err := g.resolver.ask(g.ctx, q, filter{
		address: func(addr netip.Addr) string { return g.deniedAnswer(q, addr) },
		alias:   g.deniedAlias,
	})
	f.rec.Address, f.rec.Port = from.Addr(), from.Port()
	if err != nil {
		f.fail(err)
		return answer{code: dnsmessage.RCodeServerFailure}
	}
	for _, r := range a.addresses {
		g.remember(r.addr, q.name(), r.ttl)
	}
	return g.taken(f, a)
}

// taken tells what was taken out of an answer. One of which nothing is left is
// denied.
func (g *Gateway) taken(f *flow, a answer) answer {
	if a.taken == "" {
		return a
	}
	f.rec.Reason = "taken out of the answer: " + a.taken
	if len(a.addresses) == 0 {
		f.rec.Verdict = Denied
	}
	return a
}

// forms are the names that a question's name counts for: itself, and what the
// sandbox may have put a search domain behind.
func (g *Gateway) forms(name string) []string {
	list := []string{name}
	for _, domain := range g.search {
		if short, found := strings.CutSuffix(name, "."+domain); found && short != "" {
			list = append(list, short)
		}
	}
	return list
}

// remember says that name was resolved to addr, under all its forms.
func (g *Gateway) remember(addr netip.Addr, name string, ttl time.Duration) {
	forms, now := g.forms(name), time.Now()
	for i := range forms {
		g.names.remember(addr, forms[len(forms)-1-i], ttl, now)
	}
}

// fromTable answers a question for a name of the host's table.
func (g *Gateway) fromTable(q question, list []netip.Addr) (a answer) {
	h := dnsmessage.ResourceHeader{Name: q.q.Name, Type: q.q.Type, Class: dnsmessage.ClassINET, TTL: tableTTL}
	for _, addr := range list {
		asked := addr.Is4() && q.q.Type == dnsmessage.TypeA || addr.Is6() && q.q.Type == dnsmessage.TypeAAAA
		if why := g.deniedAnswer(q, addr); why != "" {
			if asked {
				a.taken = why
			}
			continue
		}
		g.remember(addr, q.name(), nameLeast)
		if asked {
			a.addresses = append(a.addresses, resolved{addr: addr})
			a.answers = append(a.answers, dnsmessage.Resource{Header: h, Body: addressBody(asSeen(addr))})
		}
	}
	return a
}

// deniedAnswer tells why an address may not be told to the sandbox: no port of
// it could be reached.
func (g *Gateway) deniedAnswer(q question, addr netip.Addr) string {
	v := g.egress.Judge(policy.Destination{Addr: addr, Names: g.forms(q.name()), Own: !addr.IsLoopback() && g.own.has(addr)})
	if v.Allowed {
		return ""
	}
	return v.Reason
}

// deniedAlias tells why a name may not be what another is an alias of. In an
// allowlist the name that was asked for counts, not where it leads.
func (g *Gateway) deniedAlias(name string) string {
	e := g.egress
	e.Mode = policy.EgressDefault
	if v := e.JudgeName(g.forms(name)...); !v.Allowed {
		return v.Reason
	}
	return ""
}
