package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// EgressMode is what happens to a destination that no rule speaks of. The zero
// value denies.
type EgressMode int

const (
	// EgressNone: there is no network; rules change nothing.
	EgressNone EgressMode = iota
	// EgressDefault: the internet is allowed, reserved ranges are denied.
	EgressDefault
	// EgressAllowlist: only what an allow rule names is allowed.
	EgressAllowlist
)

func (m EgressMode) String() string {
	switch m {
	case EgressDefault:
		return "default"
	case EgressAllowlist:
		return "allowlist"
	}
	return "none"
}

// Egress says where a sandbox may connect to. It is judged on the address of
// each flow, when the flow begins (Judge), and on each question to a name
// server (JudgeName).
type Egress struct {
	Mode  EgressMode
	Allow []EgressRule
	Deny  []EgressRule
}

// RunEgress is the policy of RUN steps when nobody asks for another one.
func RunEgress() Egress { return Egress{Mode: EgressDefault} }

// EgressRule names destinations, by address or by name. Exactly one of Prefix
// and Name is set.
type EgressRule struct {
	Prefix netip.Prefix
	// Name is a name in lower case without a dot at its end; *.example.com
	// stands for all names below example.com, and not for example.com.
	Name string
	Port uint16 // 0: every port
	// Near: the name may also stand for loopback and for the host's own addresses.
	// It is set where the user says what runs there, not what a step may reach.
	Near bool
}

// Destination is where a flow wants to go.
type Destination struct {
	Addr netip.Addr
	// Port is 0 for a protocol without ports, and where it is not known yet (an
	// address in a name server's answer): then every rule about a port allows,
	// and none denies.
	Port uint16
	// Names are those that Addr was resolved from, a short while ago.
	Names []string
	// Own: Addr is one of the host's own.
	Own bool
}

// Verdict is a decision and its reason, in few words: one of those below, or
// what a reserved range is for.
type Verdict struct {
	Allowed bool
	Reason  string
}

const (
	noNetwork  = "no network"
	byDenyRule = "deny rule"
	notListed  = "no allow rule"
	ownAddress = "the host's own address"
	loopback   = "loopback"
)

// Opener is the kind of allow rule that opens what was denied.
type Opener int

const (
	// OpensNever: none does, or nobody should be told of it: what clouds serve
	// credentials at, say.
	OpensNever Opener = iota
	OpensByAddress
	OpensByName // or by address
)

// Opens says which rule opens what was denied for a reason, which may have
// words before it.
func Opens(reason string) Opener {
	switch {
	case strings.HasSuffix(reason, notListed):
		return OpensByName
	case strings.HasSuffix(reason, ownAddress), strings.HasSuffix(reason, loopback):
		return OpensByAddress
	}
	for _, r := range ReservedRanges() {
		if r.Private && strings.HasSuffix(reason, r.For) {
			return OpensByName
		}
	}
	return OpensNever
}

// Judge decides on a destination. The first line that applies wins:
//
//  1. EgressNone denies.
//  2. A deny rule by address denies.
//  3. A reserved range denies (see ReservedRanges; the host's own address is a
//     range of one), unless an allow rule opens it: a rule by address whose
//     prefix lies in that range, so that 0.0.0.0/0 opens none; or, for private
//     ranges alone, a rule by the name that the address was resolved from; or,
//     for loopback and the host's own address, such a rule with Near.
//  4. An allow rule, by address or by name, allows.
//  5. EgressDefault allows, EgressAllowlist denies.
//
// An address with an IPv4 address in it that a translator would send on to
// (NAT64) is judged as both: either can deny.
func (e Egress) Judge(d Destination) Verdict {
	if e.Mode == EgressNone {
		return Verdict{Reason: noNetwork}
	}
	forms := formsOf(d.Addr)
	for _, a := range forms {
		if hits(e.Deny, a, d.Port, strict) {
			return Verdict{Reason: byDenyRule}
		}
	}
	for _, a := range forms {
		if r, closed := e.closedBy(a, d); closed {
			return Verdict{Reason: r.For}
		}
	}
	listed := e.named(d)
	for _, a := range forms {
		listed = listed || hits(e.Allow, a, d.Port, loose)
	}
	return e.otherwise(listed)
}

// JudgeName decides whether a name, in any of the forms that it counts for, may
// be resolved. A deny rule by name comes first, then an allow rule by name, then
// the mode. In EgressAllowlist a name that no rule names is not asked for:
// questions carry data out.
func (e Egress) JudgeName(forms ...string) Verdict {
	hits := func(rules []EgressRule) bool {
		return slices.ContainsFunc(forms, func(name string) bool {
			return hitsName(rules, strings.ToLower(strings.TrimSuffix(name, ".")), 0)
		})
	}
	switch {
	case e.Mode == EgressNone:
		return Verdict{Reason: noNetwork}
	case hits(e.Deny):
		return Verdict{Reason: byDenyRule}
	}
	return e.otherwise(hits(e.Allow))
}

// otherwise decides on what nothing denies.
func (e Egress) otherwise(listed bool) Verdict {
	switch {
	case listed:
		return Verdict{Allowed: true, Reason: "allow rule"}
	case e.Mode == EgressDefault:
		return Verdict{Allowed: true, Reason: "internet"}
	}
	return Verdict{Reason: notListed}
}

// closedBy finds the reserved range that holds a and that no allow rule opens.
func (e Egress) closedBy(a netip.Addr, d Destination) (Range, bool) {
	if d.Own && a == d.Addr {
		own := Range{Prefix: netip.PrefixFrom(a, a.BitLen()), For: ownAddress}
		if !e.opens(own, a, d.Port) && !e.near(d) {
			return own, true
		}
	}
	r, found := reserved(a)
	if !found || e.opens(r, a, d.Port) || r.Private && e.named(d) || r.For == loopback && e.near(d) {
		return Range{}, false
	}
	return r, true
}

// near tells whether a rule with Near names d.
func (e Egress) near(d Destination) bool {
	return slices.ContainsFunc(e.Allow, func(r EgressRule) bool {
		return r.Near && slices.ContainsFunc(d.Names, func(n string) bool { return hitsName([]EgressRule{r}, n, d.Port) })
	})
}

// opens tells whether an allow rule names a part of range r that holds a.
func (e Egress) opens(r Range, a netip.Addr, port uint16) bool {
	for _, rule := range e.Allow {
		if rule.Prefix.IsValid() && rule.Prefix.Bits() >= r.Prefix.Bits() && rule.Prefix.Contains(a) && loose(rule.Port, port) {
			return true
		}
	}
	return false
}

func (e Egress) named(d Destination) bool {
	for _, n := range d.Names {
		if hitsName(e.Allow, n, d.Port) {
			return true
		}
	}
	return false
}

// strict and loose tell whether a rule's port applies to a destination's.
func strict(rule, port uint16) bool { return rule == 0 || rule == port }
func loose(rule, port uint16) bool  { return rule == 0 || port == 0 || rule == port }

func hits(rules []EgressRule, a netip.Addr, port uint16, ports func(rule, port uint16) bool) bool {
	for _, r := range rules {
		if r.Prefix.IsValid() && r.Prefix.Contains(a) && ports(r.Port, port) {
			return true
		}
	}
	return false
}

func hitsName(rules []EgressRule, name string, port uint16) bool {
	for _, r := range rules {
		if r.Name == "" || !loose(r.Port, port) {
			continue
		}
		below, wild := strings.CutPrefix(r.Name, "*")
		if r.Name == name || wild && len(name) > len(below) && strings.HasSuffix(name, below) {
			return true
		}
	}
	return false
}
