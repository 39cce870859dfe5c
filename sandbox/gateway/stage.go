package gateway

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stageArg is the word that makes this program the first stage. It is none
// that a person types.
const stageArg = "first-stage-of-link"

// IsFirstStage tells whether a program's arguments, its own name among them,
// are those that Through made.
func IsFirstStage(args []string) bool { return len(args) > 4 && args[1] == stageArg }

// FirstStage makes the link and becomes the command. It returns only an error,
// and then the program must end; the launcher has been told.
func FirstStage(args []string) error {
	// Namespaces belong to threads, and so does the signal at the launcher's end.
	runtime.LockOSThread()
	fd, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("first stage: %w", err)
	}
	// The command gets the files that it was given and none that the launcher
	// was left with.
	if err := CloseOnExec(fd); err != nil {
		return fmt.Errorf("first stage: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("first stage: die with the launcher: %w", err)
	}
	link, err := makeLink()
	if err != nil {
		_ = unix.Sendmsg(fd, []byte(err.Error()), nil, nil, 0) // the launcher also sees the end
		return fmt.Errorf("first stage: %w", err)
	}
	if err := unix.Sendmsg(fd, []byte{1}, unix.UnixRights(link), nil, 0); err != nil {
		return fmt.Errorf("first stage: hand over the link: %w", err)
	}
	if err := unix.Close(link); err != nil {
		return fmt.Errorf("first stage: %w", err)
	}
	// A launcher that died before the signal was asked for is seen here.
	if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
		return fmt.Errorf("first stage: the launcher ended: %w", errors.Join(err, os.ErrClosed))
	}
	return fmt.Errorf("first stage: start %s: %w", args[3], syscall.Exec(args[3], args[4:], []string{}))
}

// CloseOnExec lets no program that this process becomes or starts have its
// descriptors from first on, but those that it is given.
func CloseOnExec(first int) error {
	err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// A kernel before 5.11, or a filter that does not know the call.
	entries, err2 := os.ReadDir("/proc/self/fd")
	if err2 != nil {
		return fmt.Errorf("close descriptors on exec: %w", errors.Join(err, err2))
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// noAddress is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): no link-local address.
const noAddress = 1

// Names of the interfaces. Nobody sees the far one.
const (
	nearName = "eth0"
	farName  = "far0"
)

// makeLink makes the far namespace, the pair and its packet socket, and sets up
// this thread's namespace, to which it comes back.
func makeLink() (int, error) {
	near, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return -1, fmt.Errorf("open network namespace: %w", err)
	}
	defer near.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("make network namespace: %w", err)
	}
	fd, err := makeFar(int(near.Fd()))
	if err != nil {
		return -1, err
	}
	if err := unix.Setns(int(near.Fd()), unix.CLONE_NEWNET); err != nil {
		return -1, errors.Join(fmt.Errorf("go back to network namespace: %w", err), unix.Close(fd))
	}
	if err := setUpNear(); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// makeFar makes the pair and opens the packet socket of its far end.
func makeFar(near int) (int, error) {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = farName, LinkMTU
	// The device's own address is not the gateway's: so the kernel's IP does not
	// look at the frames that the packet socket gets.
	pair := &netlink.Veth{
		LinkAttrs: a, PeerName: nearName, PeerHardwareAddr: sandboxMAC(), PeerMTU: LinkMTU, PeerNamespace: netlink.NsFd(near),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return -1, fmt.Errorf("make veth pair: %w", err)
	}
	far, err := netlink.LinkByName(farName)
	if err != nil {
		return -1, fmt.Errorf("find far end: %w", err)
	}
	if err := withoutIPv6(netlink.LinkSetIP6AddrGenMode(far, noAddress)); err != nil {
		return -1, fmt.Errorf("far end: %w", err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		return -1, fmt.Errorf("far end: %w", err)
	}
	return packetSocket(far.Attrs().Index)
}

// socketBuffer is what may wait in the link in each direction, in bytes, where
// the user may have as much.
const socketBuffer = 4 << 20

func packetSocket(device int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	const all = uint16(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8) // in network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device}); err != nil {
		return -1, errors.Join(fmt.Errorf("bind packet socket: %w", err), unix.Close(fd))
	}
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
			// An ordinary user gets what net.core.rmem_max and wmem_max say.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
		}
	}
	return fd, nil
}

// setUpNear gives this namespace the interfaces, addresses and routes that
// runsc then takes over into the sandbox.
func setUpNear() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	eth, err := netlink.LinkByName(nearName)
	if err != nil {
		return fmt.Errorf("find %s: %w", nearName, err)
	}
	for _, do := range []func() error{
		func() error { return netlink.LinkSetUp(lo) },
		func() error {
			return withoutIPv6(netlink.LinkSetIP6AddrGenMode(eth, noAddress))
		},
		func() error { return netlink.LinkSetUp(eth) },
		func() error { return route(eth, SandboxIPv4.AsSlice(), GatewayIPv4.AsSlice(), linkBits4) },
		func() error {
			return withoutIPv6(route(eth, SandboxIPv6.AsSlice(), GatewayIPv6.AsSlice(), linkBits6))
		},
	} {
		if err := do(); err != nil {
			return fmt.Errorf("set up %s: %w", nearName, err)
		}
	}
	return nil
}

// route adds an address and the way to everywhere.
func route(eth netlink.Link, own, gateway net.IP, bits int) error {
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: own, Mask: net.CIDRMask(bits, 8*len(own))},
		Flags: unix.IFA_F_NODAD, // nobody else is there to have it
	}
	neighbour := &netlink.Neigh{
		LinkIndex: eth.Attrs().Index, IP: gateway, HardwareAddr: gatewayMAC(), State: netlink.NUD_PERMANENT,
	}
	way := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway}
	if err := netlink.AddrAdd(eth, addr); err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := netlink.NeighAdd(neighbour); err != nil {
		return fmt.Errorf("add neighbour: %w", err)
	}
	if err := netlink.RouteAdd(way); err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	return nil
}

// withoutIPv6 takes the errors of a kernel without IPv6, or with it turned off,
// for none: the sandbox has IPv4 alone then.
func withoutIPv6(err error) error {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EACCES} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
