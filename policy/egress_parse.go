package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseEgressMode reads a mode by its name.
func ParseEgressMode(text string) (EgressMode, error) {
	for _, m := range []EgressMode{EgressNone, EgressDefault, EgressAllowlist} {
		if text == m.String() {
			return m, nil
		}
	}
	return EgressNone, fmt.Errorf("network %q is none of none, default, allowlist", text)
}

// ParseAllow reads what may be reached: a name, *.name, an address or a prefix,
// each with or without :port; an IPv6 one with a port stands in brackets.
// localhost is the host's loopback, of both families. It is strict: what other
// programs take for an address and netip does not (127.1, 0x7f.1, 2130706433)
// is an error, never a name.
func ParseAllow(text string) ([]EgressRule, error) {
	host, port, err := splitPort(text)
	if err != nil {
		return nil, fmt.Errorf("network rule %q: %w", text, err)
	}
	if strings.EqualFold(host, "localhost") {
		return []EgressRule{
			{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: port},
			{Prefix: netip.MustParsePrefix("::1/128"), Port: port},
		}, nil
	}
	r, err := parseHost(host)
	if err != nil {
		return nil, fmt.Errorf("network rule %q: %w", text, err)
	}
	r.Port = port
	return []EgressRule{r}, nil
}

// ParseDeny reads what may not be reached, as ParseAllow does. A name has no
// port there: what is denied is to resolve it.
func ParseDeny(text string) ([]EgressRule, error) {
	rules, err := ParseAllow(text)
	if err != nil {
		return nil, err
	}
	if rules[0].Name != "" && rules[0].Port != 0 {
		return nil, fmt.Errorf("network rule %q: a name is denied with all its ports", text)
	}
	return rules, nil
}

// splitPort cuts :port off. Two colons without brackets are an IPv6 address.
func splitPort(text string) (host string, port uint16, err error) {
	inner, after, bracket := strings.Cut(text, "]")
	switch {
	case bracket:
		if !strings.HasPrefix(inner, "[") || after != "" && !strings.HasPrefix(after, ":") {
			return "", 0, fmt.Errorf("misplaced bracket")
		}
		host, text = inner[1:], after
		if !strings.Contains(host, ":") {
			return "", 0, fmt.Errorf("brackets are for IPv6 addresses")
		}
	case strings.Count(text, ":") == 1:
		host, _, _ = strings.Cut(text, ":")
		text = text[len(host):]
	default:
		host, text = text, ""
	}
	if text == "" {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(text[1:], 10, 16)
	if err != nil || n == 0 || text[1] == '0' {
		return "", 0, fmt.Errorf("%q is no port", text[1:])
	}
	return host, uint16(n), nil
}

func parseHost(host string) (EgressRule, error) {
	if strings.Contains(host, "/") {
		p, err := netip.ParsePrefix(host)
		switch {
		case err != nil:
			return EgressRule{}, fmt.Errorf("%q is no prefix like 10.1.0.0/16", host)
		case p.Addr().Is4In6():
			return EgressRule{}, fmt.Errorf("write it as an IPv4 prefix")
		case p != p.Masked():
			return EgressRule{}, fmt.Errorf("the prefix is %s", p.Masked())
		}
		return EgressRule{Prefix: p}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.Is4In6():
			return EgressRule{}, fmt.Errorf("write it as the IPv4 address %s", a.Unmap())
		case a.Zone() != "":
			return EgressRule{}, fmt.Errorf("an address with a zone cannot be reached from a sandbox")
		}
		return EgressRule{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if err := checkName(strings.TrimPrefix(name, "*.")); err != nil {
		return EgressRule{}, err
	}
	return EgressRule{Name: name}, nil
}

// checkName takes letters, digits, hyphens and underscores in labels of usual
// lengths. A last label of digits would be an address to other programs.
func checkName(name string) error {
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || len(name) > 253 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("%q is neither an address nor a name", name)
		}
	}
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return fmt.Errorf("%q is neither an address nor a name", name)
	}
	return nil
}
