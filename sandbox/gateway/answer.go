package gateway

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of an answer that is passed on.
const (
	maxRecords = 256
	maxAliases = 16
	maxTTL     = uint32(nameMost / time.Second)
)

// answer is what the sandbox may know of a name server's answer.
type answer struct {
	code        dnsmessage.RCode
	answers     []dnsmessage.Resource
	authorities []dnsmessage.Resource
	addresses   []resolved
	taken       string // why addresses were taken out, or ""
	truncated   bool   // the server says that there is more
}

// resolved is an address that the question's name has.
type resolved struct {
	addr netip.Addr
	ttl  time.Duration
}

// filter says what an answer may hold.
type filter struct {
	// address returns "" or why the address is denied.
	address func(netip.Addr) string
	// alias returns "" or why the name is denied.
	alias func(string) string
}

// errAnswer is an answer to another question, or none that can be read.
var errAnswer = errors.New("the name server's answer is malformed")

// parseAnswer reads a name server's answer to q, and leaves out the addresses
// that the filter denies, all that does not belong to the question's name or to
// what that is an alias of, and all sections but answers and the reason for
// there being none.
func parseAnswer(msg []byte, id uint16, q question, f filter) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id {
		return answer{}, errAnswer
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.q.Type || asked.Class != q.q.Class || !sameName(asked.Name, q.q.Name) {
		return answer{}, errAnswer
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, errAnswer
	}
	a := answer{code: h.RCode, truncated: h.Truncated}
	if a.truncated {
		return a, nil // it is asked again over TCP
	}
	all, err := readAll(p.Answer)
	if err != nil {
		return answer{}, errAnswer
	}
	if !a.keep(all, q, f) {
		return a, nil
	}
	auth, err := readAll(p.Authority)
	if err != nil {
		return answer{}, errAnswer
	}
	for _, r := range auth {
		if _, ok := r.Body.(*dnsmessage.SOAResource); ok {
			a.authorities = append(a.authorities, capped(r))
		}
	}
	return a, nil
}

// readAll reads a section.
func readAll(next func() (dnsmessage.Resource, error)) (out []dnsmessage.Resource, err error) {
	for {
		r, err := next()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return out, nil
		case err != nil:
			return nil, err
		case len(out) == maxRecords:
			return nil, errAnswer
		}
		out = append(out, r)
	}
}

// deniedName is the code for a name that the policy denies: there is no such name
// here. Refused would say it better, but musl takes it for the trouble of a server
// and asks again for seconds; glibc and Go ask again, too. It comes without a SOA
// record, so that nobody keeps it (RFC 2308, section 5).
const deniedName = dnsmessage.RCodeNameError

// keep takes over the records that may stay, or says that none may.
func (a *answer) keep(all []dnsmessage.Resource, q question, f filter) bool {
	names := chain(all, q.q.Name)
	for n := range names {
		if why := f.alias(n); why != "" {
			*a = answer{code: deniedName, taken: why}
			return false
		}
	}
	for _, r := range all {
		if !names[lower(r.Header.Name)] || r.Header.Class != dnsmessage.ClassINET {
			continue
		}
		r = capped(r)
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			a.keepAddress(r, netip.AddrFrom4(b.A), f)
		case *dnsmessage.AAAAResource:
			a.keepAddress(r, netip.AddrFrom16(b.AAAA), f)
		case *dnsmessage.SVCBResource, *dnsmessage.HTTPSResource, *dnsmessage.OPTResource:
		default:
			a.answers = append(a.answers, r)
		}
	}
	return true
}

func (a *answer) keepAddress(r dnsmessage.Resource, addr netip.Addr, f filter) {
	if why := f.address(addr); why != "" {
		a.taken = why
		return
	}
	if addr.IsLoopback() {
		addr = canonical(addr)
		r.Body = addressBody(asSeen(addr))
	}
	a.answers = append(a.answers, r)
	a.addresses = append(a.addresses, resolved{addr, time.Duration(r.Header.TTL) * time.Second})
}

// canonical is the loopback address that the gateway's own one stands for.
func canonical(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// asSeen is an address of the host's as the sandbox can reach it.
func asSeen(addr netip.Addr) netip.Addr {
	switch {
	case addr.IsLoopback() && addr.Is4():
		return GatewayIPv4
	case addr.IsLoopback():
		return GatewayIPv6
	}
	return addr
}

func addressBody(addr netip.Addr) dnsmessage.ResourceBody {
	if addr.Is4() {
		return &dnsmessage.AResource{A: addr.As4()}
	}
	return &dnsmessage.AAAAResource{AAAA: addr.As16()}
}

// chain is the set of names that a question's name is an alias of, and itself.
func chain(all []dnsmessage.Resource, from dnsmessage.Name) map[string]bool {
	names := map[string]bool{lower(from): true}
	for range maxAliases {
		size := len(names)
		for _, r := range all {
			if b, ok := r.Body.(*dnsmessage.CNAMEResource); ok && names[lower(r.Header.Name)] && len(names) <= maxAliases {
				names[lower(b.CNAME)] = true
			}
		}
		if len(names) == size {
			break
		}
	}
	return names
}

// capped is r with a lifetime that what is remembered about names outlives.
func capped(r dnsmessage.Resource) dnsmessage.Resource {
	r.Header.TTL = min(r.Header.TTL, maxTTL)
	return r
}

func sameName(a, b dnsmessage.Name) bool { return lower(a) == lower(b) }

func lower(n dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(n.String(), "."))
}
