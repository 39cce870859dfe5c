package posture

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// network lists the interfaces but lo, with their addresses, and the gateways of
// the default routes.
func network(p *request.Posture) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		up := i.Flags&net.FlagUp != 0
		if i.Flags&net.FlagLoopback != 0 || !up && len(addrs) == 0 {
			continue
		}
		in := request.Interface{Name: i.Name}
		for _, a := range addrs {
			in.Addresses = append(in.Addresses, a.String())
		}
		slices.Sort(in.Addresses)
		p.Network.Interfaces = append(p.Network.Interfaces, in)
	}
	slices.SortFunc(p.Network.Interfaces, func(a, b request.Interface) int { return strings.Compare(a.Name, b.Name) })
	p.Network.Gateways, err = gateways()
	return err
}

// gateways are those of the routes to everywhere (rtnetlink(7)).
func gateways() ([]string, error) {
	rib, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("ask for routes: %w", err)
	}
	msgs, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, fmt.Errorf("ask for routes: %w", err)
	}
	const prefixLen = 1 // struct rtmsg: family, then the length of the destination's prefix
	var found []string
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || m.Data[prefixLen] != 0 {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("ask for routes: %w", err)
		}
		for _, a := range attrs {
			if addr, ok := netip.AddrFromSlice(a.Value); a.Attr.Type == unix.RTA_GATEWAY && ok {
				found = append(found, addr.String())
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
