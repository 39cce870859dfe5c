package main

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// surfaceTries are about which system calls there are.
func surfaceTries() map[string]attempt {
	return map[string]attempt{"surface": surface}
}

// maxCall is the last number that is tried; there are none so high.
const maxCall = 511

// unsafeCalls would end this program, hold it up, or fork it.
var unsafeCalls = map[uintptr]bool{
	unix.SYS_EXIT: true, unix.SYS_EXIT_GROUP: true, unix.SYS_PAUSE: true, unix.SYS_RT_SIGRETURN: true,
	unix.SYS_FORK: true, unix.SYS_VFORK: true,
}

// surface makes every system call with arguments that none takes (all bits set), and
// some with arguments that matter, and prints what each says, a line a call:
// "surface NUMBER ERRNO" and "surface NAME ERRNO".
func surface(p *probe, _ []string) string {
	const all = ^uintptr(0)
	var lines []string
	for nr := range uintptr(maxCall + 1) {
		if unsafeCalls[nr] {
			continue
		}
		_, _, e := unix.Syscall6(nr, all, all, all, all, all, all)
		lines = append(lines, fmt.Sprintf("surface %d %s", nr, errnoName(e)))
	}
	for _, c := range curated() {
		_, _, e := unix.Syscall6(c.nr, c.a, c.b, c.c, 0, 0, 0)
		lines = append(lines, fmt.Sprintf("surface %s %s", c.name, errnoName(e)))
	}
	fmt.Println(strings.Join(lines, "\n"))
	p.see("%d calls", len(lines))
	return inert
}

func errnoName(e error) string {
	var n unix.Errno
	if !errors.As(e, &n) || n == 0 {
		return "ok"
	}
	if name := unix.ErrnoName(n); name != "" {
		return name
	}
	return fmt.Sprint(int(n))
}

// call is a system call whose arguments matter.
type call struct {
	name    string
	nr      uintptr
	a, b, c uintptr
}

func curated() []call {
	socket := func(name string, family, kind, protocol uintptr) call {
		return call{"socket-" + name, unix.SYS_SOCKET, family, kind, protocol}
	}
	params := make([]byte, 256)
	return []call{
		socket("packet-raw", unix.AF_PACKET, unix.SOCK_RAW, 0x0300),
		socket("packet-dgram", unix.AF_PACKET, unix.SOCK_DGRAM, 0x0300),
		socket("vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		socket("alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		socket("bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1),
		socket("can", unix.AF_CAN, unix.SOCK_RAW, 1),
		socket("xdp", unix.AF_XDP, unix.SOCK_RAW, 0),
		socket("tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0),
		socket("rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0),
		socket("smc", unix.AF_SMC, unix.SOCK_STREAM, 0),
		socket("nfc", unix.AF_NFC, unix.SOCK_RAW, 0),
		socket("netlink-route", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
		socket("netlink-netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER),
		socket("netlink-uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT),
		socket("netlink-audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT),
		socket("netlink-xfrm", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM),
		socket("inet-raw-tcp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP),
		socket("inet-raw-icmp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		socket("inet-sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP),
		socket("inet-mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, 8, addressOf(params), 0},
		{"userfaultfd", unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0, 0},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, addressOf(params), 0, 0},
		{"bpf-map-create", unix.SYS_BPF, 0, addressOf(params), 64},
		{"bpf-prog-load", unix.SYS_BPF, 5, addressOf(params), 64},
		{"keyctl-session", unix.SYS_KEYCTL, 0, 0, 0},
		{"unshare-user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0},
		{"unshare-mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS, 0, 0},
		{"unshare-files", unix.SYS_UNSHARE, unix.CLONE_FILES, 0, 0},
		{"personality-linux32", unix.SYS_PERSONALITY, 8, 0, 0},
		{"personality-read-implies-exec", unix.SYS_PERSONALITY, 0x400000, 0, 0},
		{"ptrace-traceme", unix.SYS_PTRACE, 0, 0, 0},
		{"prctl-set-mm", unix.SYS_PRCTL, unix.PR_SET_MM, 1, 0},
		{"prctl-speculation", unix.SYS_PRCTL, unix.PR_SET_SPECULATION_CTRL, 0, 0},
		{"seccomp-strict", unix.SYS_SECCOMP, 0, 1, 0},
		{"landlock", unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1},
		{"memfd_secret", unix.SYS_MEMFD_SECRET, 0, 0, 0},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, 1, 0, 0},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, 1, addressOf(params), 1},
		{"kcmp", unix.SYS_KCMP, 1, 1, 0},
		{"quotactl", unix.SYS_QUOTACTL, 0x80000101, 0, 0},
		{"reboot", unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, 0},
		{"swapon", unix.SYS_SWAPON, addressOf(params), 0, 0},
		{"syslog", unix.SYS_SYSLOG, 3, addressOf(params), 64},
		{"iopl", unix.SYS_IOPL, 3, 0, 0},
	}
}

// addressOf is where a buffer, which has to live on, lies.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
