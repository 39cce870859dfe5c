package escape

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The runner is where builds are started; the world is all that it reaches.
const (
	runnerIPv4 = "192.168.77.2"
	runnerIPv6 = "fd77::2"
	gateIPv4   = "192.168.77.1"
	gateIPv6   = "fd77::1"
	// PublicIPv4 and PublicIPv6 are addresses of the world that a build may reach.
	PublicIPv4 = "11.22.33.44"
	PublicIPv6 = "2a00:1122::44"
	// resolverIPv4 is where the runner's name server is.
	resolverIPv4 = "11.22.33.53"
)

// Forbidden are addresses that no step may reach: the runner's own, and those of
// the world that stand for metadata services and internal networks.
func Forbidden() (runner, world []string) {
	return []string{"127.0.0.1", "127.1.2.3", "::1", runnerIPv4, runnerIPv6},
		[]string{gateIPv4, gateIPv6, "169.254.169.254", "169.254.170.2", "100.100.100.200", "10.20.30.40", "172.16.5.5",
			"192.168.9.9", "100.64.1.1", "198.18.1.1", "fd00:ec2::254", "fd12:3456::1"}
}

const marker = "KBUILD_ESCAPE_INSIDE"

// Inside runs this program again in network and mount namespaces of its own and
// exits with its status; there it returns. It needs root.
func Inside() {
	if os.Getenv(marker) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM,
	}
	signal.Ignore(os.Interrupt) // the child has it too, and says what it left
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "the attacks need root, for namespaces:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// World is the network behind the runner, in a namespace of its own.
type World struct{ calls chan func() }

// newWorld makes the world and the way to it. It changes the network and the
// mounts of this process's namespaces.
func newWorld() (*World, error) {
	w := &World{calls: make(chan func())}
	ready := make(chan error)
	go w.live(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make the world: %w", err)
	}
	if err := runnerSide(); err != nil {
		return nil, fmt.Errorf("make the runner's network: %w", err)
	}
	return w, nil
}

// live owns the thread that is in the world.
func (w *World) live(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the process
	runner, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		ready <- err
		return
	}
	defer runner.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- err
		return
	}
	ready <- worldSide(int(runner.Fd()))
	for call := range w.calls {
		call()
	}
}

// In calls f on a thread that is in the world: sockets made there are the
// world's.
func (w *World) In(f func()) {
	done := make(chan bool)
	w.calls <- func() { defer close(done); f() }
	<-done
}

// Listen listens in the world; port 0 takes a free one.
func (w *World) Listen(address string) (l net.Listener, err error) {
	w.In(func() { l, err = net.Listen("tcp", address) })
	return l, err
}

func worldSide(runner int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "world"}, PeerName: "runner", PeerNamespace: netlink.NsFd(runner)}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	_, world := Forbidden()
	return errors.Join(
		up("world", gateIPv4+"/24", gateIPv6+"/64"),
		up("lo", append(hosts(world), PublicIPv4+"/32", PublicIPv6+"/128", resolverIPv4+"/32")...),
	)
}

func runnerSide() error {
	if err := errors.Join(up("lo"), up("runner", runnerIPv4+"/24", runnerIPv6+"/64")); err != nil {
		return err
	}
	for _, gate := range []string{gateIPv4, gateIPv6} {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gate)}); err != nil {
			return fmt.Errorf("route through %s: %w", gate, err)
		}
	}
	return ownEtc()
}

// hosts are addresses as prefixes of one, without those of the link.
func hosts(addresses []string) []string {
	var out []string
	for _, a := range addresses {
		if ip := netip.MustParseAddr(a); a != gateIPv4 && a != gateIPv6 {
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()).String())
		}
	}
	return out
}

func up(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s on %s: %w", a, name, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// ownEtc gives this mount namespace a copy of /etc, in which the name server is
// the world's: what happens to it is the attacks' doing, and hits nobody.
func ownEtc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "etc-")
	if err != nil {
		return err
	}
	defer os.Remove(dir) // the mount keeps what is in it
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	var out []byte
	for range 3 { // what is in /etc may change meanwhile
		if out, err = exec.Command("cp", "-a", "/etc/.", dir).CombinedOutput(); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, out)
	}
	conf := filepath.Join(dir, "resolv.conf")
	err = errors.Join(os.RemoveAll(conf), os.WriteFile(conf, []byte("nameserver "+resolverIPv4+"\n"), 0o644),
		unix.Mount(dir, "/etc", "", unix.MS_BIND, ""))
	return errors.Join(err, unix.Unmount(dir, 0))
}
