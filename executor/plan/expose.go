package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// expose is EXPOSE. A variable may hold several ports.
func (m *maker) expose(d *draft, i *instructions.ExposeCommand, lint *linter.Linter) error {
	c := &d.Image.Config
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	var ports []string
	for _, word := range i.Ports {
		specs, err := m.expandWords(word, d.env)
		if err != nil {
			return err
		}
		for _, spec := range specs {
			p, err := parsePort(spec)
			if err != nil {
				return err
			}
			m.checks.port(spec, p, i.Location(), lint)
			if err := m.budget.take(64 * (p.last - p.first + 1)); err != nil {
				return err
			}
			ports = append(ports, p.list()...)
		}
	}
	for _, p := range ports {
		c.ExposedPorts[p] = struct{}{}
	}
	return m.record(d, fmt.Sprintf("EXPOSE %v", ports), false)
}

// port is one argument of EXPOSE.
type port struct {
	first, last int
	proto       string // as written; tcp if it was not
	mapped      bool   // an address or a host port was given; they mean nothing
}

// list are the ports as the config has them.
func (p port) list() []string {
	list := make([]string, 0, p.last-p.first+1)
	for n := p.first; n <= p.last; n++ {
		list = append(list, strconv.Itoa(n)+"/"+strings.ToLower(p.proto))
	}
	return list
}

// parsePort reads [[address:]host:]port[-port][/protocol].
func parsePort(spec string) (port, error) {
	address, host, container := splitPort(spec)
	number, proto, _ := strings.Cut(container, "/")
	p := port{proto: proto, mapped: address != "" || host != ""}
	if number == "" {
		return p, fmt.Errorf("invalid port: %q: no port specified", spec)
	}
	switch strings.ToLower(proto) {
	case "":
		p.proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return p, fmt.Errorf("invalid port: %q: invalid proto: %s", spec, proto)
	}
	if address != "" && !isAddress(address) {
		return p, errors.New("invalid IP address: " + address)
	}
	var err error
	if p.first, p.last, err = portRange(number); err != nil {
		return p, errors.New("invalid containerPort: " + number)
	}
	if host == "" {
		return p, nil
	}
	first, last, err := portRange(host)
	if err != nil {
		return p, errors.New("invalid hostPort: " + host)
	}
	// A range of host ports for one port is fine, two ranges have to agree.
	if p.first != p.last && last-first != p.last-p.first {
		return p, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", number, host)
	}
	return p, nil
}

// splitPort splits at the last two colons.
func splitPort(spec string) (address, host, container string) {
	rest, container, ok := cutLast(spec)
	if !ok {
		return "", "", spec
	}
	address, host, ok = cutLast(rest)
	if !ok {
		return "", rest, container
	}
	return address, host, container
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func isAddress(s string) bool {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// portRange reads N or N-M.
func portRange(s string) (first, last int, err error) {
	a, b, ok := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil || !ok {
		return first, first, err
	}
	if last, err = portNumber(b); err == nil && last < first {
		err = fmt.Errorf("invalid port range: %s", s)
	}
	return first, last, err
}

func portNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && (n < 0 || n > 65535) {
		err = errors.New("value out of range (0-65535)")
	}
	return n, err
}
