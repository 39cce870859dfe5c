package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// netTables are the files of /proc/net as a new network namespace of Linux has
// them: the heads of empty tables, and a loopback interface that nothing used.
func netTables() map[string]string {
	return map[string]string{
		"arp": "IP address       HW type     Flags       HW address            Mask     Device\n",
		"dev": "Inter-|   Receive                                                |  Transmit\n" +
			" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"    lo:" + strings.Repeat("       0", 16) + "\n",
		"if_inet6":   "",
		"ipv6_route": "",
		"route":      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n",
		"tcp":        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
		"tcp6":       "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
		"udp":        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
		"udp6":       "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
		"unix":       "Num       RefCount Protocol Flags    Type St Inode Path\n",
	}
}

// loopback are the files of /sys/class/net/lo.
func loopback() map[string]string {
	return map[string]string{
		"address": "00:00:00:00:00:00\n", "ifindex": "1\n", "mtu": "65536\n", "operstate": "unknown\n", "type": "772\n",
	}
}

// showNoNetwork shows a command without network what it looks for: the tables of
// an empty namespace and the loopback interface. gVisor has no /sys/class/net,
// and, while its sockets are the host's, nothing in /proc/net of a namespace
// that is not the first.
func (c *childConfig) showNoNetwork(root int) error {
	if !c.NoNetwork {
		return nil
	}
	route, err := openTarget(root, "/proc/net/route")
	if err == nil {
		unix.Close(route)
	} else if errors.Is(err, unix.ENOENT) {
		if err := showTables(root); err != nil {
			return fmt.Errorf("/proc/net: %w", err)
		}
	}
	if err := showLoopback(root); err != nil {
		return fmt.Errorf("/sys/class/net: %w", err)
	}
	return nil
}

// showTables covers /proc/net, a link to self/net, so that every process sees
// the same.
func showTables(root int) error {
	proc, err := openTarget(root, "/proc")
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	link, err := openat(proc, "net", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(link)
	if err := unix.Mount("tmpfs", descriptor(link), "tmpfs", nosuidNodevNoexec, "mode=555"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	dir, err := openTarget(root, "/proc/net")
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := writeTexts(dir, netTables()); err != nil {
		return err
	}
	return remountReadOnly(root, "/proc/net")
}

// showLoopback covers /sys/class by a directory that has what was there, empty
// as it was, and net/lo.
func showLoopback(root int) error {
	class, err := openTarget(root, "/sys/class")
	if err != nil {
		return err
	}
	defer unix.Close(class)
	list, err := openat(class, ".", openDir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(list)
	entries, err := readDir(list, "sys/class")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.name == "net" {
			return nil
		}
	}
	if err := fresh("tmpfs", nosuidNodevNoexec, "mode=755").at(root, "/sys/class"); err != nil {
		return err
	}
	covered, err := openTarget(root, "/sys/class")
	if err != nil {
		return err
	}
	defer unix.Close(covered)
	for _, e := range entries {
		if err := unix.Mkdirat(covered, e.name, 0o755); err != nil {
			return &fs.PathError{Op: "mkdir", Path: e.name, Err: err}
		}
	}
	if err := mkdirs(covered, []string{"net", "lo"}); err != nil {
		return err
	}
	lo, err := openTarget(root, "/sys/class/net/lo")
	if err != nil {
		return err
	}
	defer unix.Close(lo)
	if err := writeTexts(lo, loopback()); err != nil {
		return err
	}
	return remountReadOnly(root, "/sys/class")
}

// writeTexts makes files, mode 0444.
func writeTexts(dir int, texts map[string]string) error {
	for name, text := range texts {
		fd, err := openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return &fs.PathError{Op: "create", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
