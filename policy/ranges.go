package policy

import "net/netip"

// Range is a part of the address space that is not the internet.
type Range struct {
	Prefix netip.Prefix
	For    string
	// Private ranges are opened by an allow rule for a name that resolves into
	// them: an internal registry. All others only by a rule for the address.
	Private bool
}

// ReservedRanges are denied unless an allow rule names them. The longest prefix
// counts. They are the ranges that IANA's special-purpose registries do not call
// globally reachable, what a cloud serves its metadata and credentials at, and
// all forms in which an IPv6 address carries an IPv4 one, but NAT64's, where
// the address inside is judged too. In IPv6 only 2000::/3 is given out: all
// else is denied.
func ReservedRanges() []Range {
	return []Range{
		in("0.0.0.0/8", "this network"),
		private("10.0.0.0/8", "private (RFC 1918)"),
		private("100.64.0.0/10", "shared by a carrier (RFC 6598)"),
		in("100.100.100.200/32", "cloud metadata (Alibaba)"),
		in("127.0.0.0/8", loopback),
		in("168.63.129.16/32", "cloud metadata (Azure)"),
		in("169.254.0.0/16", "link-local"),
		in("169.254.169.254/32", "cloud metadata"),
		in("169.254.170.2/32", "cloud credentials (AWS containers)"),
		in("169.254.170.23/32", "cloud credentials (AWS pods)"),
		private("172.16.0.0/12", "private (RFC 1918)"),
		in("192.0.0.0/24", "protocol assignments, the link itself among them"),
		in("192.0.0.192/32", "cloud metadata (Oracle)"),
		in("192.0.2.0/24", "documentation"),
		in("192.88.99.0/24", "6to4 relays, withdrawn"),
		private("192.168.0.0/16", "private (RFC 1918)"),
		private("198.18.0.0/15", "benchmarks"),
		in("198.51.100.0/24", "documentation"),
		in("203.0.113.0/24", "documentation"),
		in("224.0.0.0/4", "multicast"),
		in("240.0.0.0/4", "reserved"),
		in("255.255.255.255/32", "broadcast"),

		in("::/3", "not global unicast"),
		in("::/96", "IPv4-compatible"),
		in("::/128", "unspecified"),
		in("::1/128", loopback),
		in("::ffff:0:0/96", "IPv4-mapped"),
		in("::ffff:0:0:0/96", "IPv4-translated"),
		in("64:ff9b:1::/48", "NAT64 of a local network"),
		in("100::/64", "discarded"),
		in("2001::/23", "protocol assignments, Teredo among them"),
		in("2001:db8::/32", "documentation"),
		in("2002::/16", "6to4"),
		in("3fff::/20", "documentation"),
		in("4000::/2", "not global unicast"),
		in("8000::/1", "not global unicast"),
		private("fc00::/7", "unique local"),
		in("fd00:ec2::254/128", "cloud metadata (AWS)"),
		in("fd00:ec2::23/128", "cloud credentials (AWS pods)"),
		in("fd20:ce::254/128", "cloud metadata (Google)"),
		in("fe80::/10", "link-local"),
		in("fec0::/10", "site-local, withdrawn"),
		in("ff00::/8", "multicast"),
	}
}

func in(prefix, purpose string) Range {
	return Range{Prefix: netip.MustParsePrefix(prefix), For: purpose}
}

func private(prefix, purpose string) Range {
	r := in(prefix, purpose)
	r.Private = true
	return r
}

// nat64 is the one range that carries IPv4 addresses and is of use today.
const nat64 = "64:ff9b::/96"

// formsOf lists what an address is judged as: itself, and what a translator
// would send on to.
func formsOf(a netip.Addr) []netip.Addr {
	a = a.WithZone("")
	if !in(nat64, "").Prefix.Contains(a) {
		return []netip.Addr{a}
	}
	b := a.As16()
	return []netip.Addr{a, netip.AddrFrom4([4]byte(b[12:]))}
}

// reserved finds the smallest range that holds a.
func reserved(a netip.Addr) (best Range, found bool) {
	if in(nat64, "").Prefix.Contains(a) {
		return Range{}, false
	}
	for _, r := range ReservedRanges() {
		if r.Prefix.Contains(a) && (!found || r.Prefix.Bits() > best.Prefix.Bits()) {
			best, found = r, true
		}
	}
	return best, found
}
