package sandbox

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denyCall makes one system call fail with EPERM in this process and all that
// it starts, as a machine would that forbids it. With SYS_UNSHARE, clone with
// CLONE_NEWUSER fails too.
func denyCall(nr int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const (
		errno   = 0x00050000 | uint32(unix.EPERM)
		allow   = 0x7fff0000
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyBit  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret     = unix.BPF_RET | unix.BPF_K
		argLow  = 16 // low half of the first argument
		newuser = unix.CLONE_NEWUSER
	)
	prog := []unix.SockFilter{
		{Code: load, K: 0},
		{Code: equal, K: uint32(nr), Jt: 0, Jf: 1},
		{Code: ret, K: errno},
		{Code: ret, K: allow},
	}
	if nr == unix.SYS_UNSHARE {
		prog = []unix.SockFilter{
			{Code: load, K: 0},
			{Code: equal, K: unix.SYS_UNSHARE, Jt: 1},
			{Code: equal, K: unix.SYS_CLONE, Jf: 2},
			{Code: load, K: argLow},
			{Code: anyBit, K: newuser, Jt: 1},
			{Code: ret, K: allow},
			{Code: ret, K: errno},
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return e
	}
	return nil
}
