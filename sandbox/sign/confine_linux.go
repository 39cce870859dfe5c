package sign

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine takes from this process, all its threads and for good, what a signer
// has no use for once it has its key: no file, socket or program can be opened
// any more, nobody of the same user can trace it or read its memory, and no
// core is dumped. What is left is to read and write what is open.
func Confine() error {
	none := unix.Rlimit{}
	if err := errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		unix.Setrlimit(unix.RLIMIT_CORE, &none),
		unix.Setrlimit(unix.RLIMIT_FSIZE, &none),
	); err != nil {
		return err
	}
	prog, err := filter(uint32(os.Getpid()))
	if err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const all = unix.SECCOMP_FILTER_FLAG_TSYNC
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, all, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("seccomp: thread %d has another filter", r)
	}
	return nil
}

// call is a system call that is allowed; with a mask only where the first
// argument has that value under it.
type call struct {
	nr         uint32
	mask, want uint32
}

// allowed are what Go's runtime needs for reading, writing and counting.
func allowed(pid uint32) []call {
	calls := []call{
		{unix.SYS_CLONE, unix.CLONE_THREAD, unix.CLONE_THREAD}, // threads, no processes
		{unix.SYS_TGKILL, ^uint32(0), pid},                     // preemption within
	}
	for _, nr := range []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_CLOSE, unix.SYS_FCNTL,
		unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_FUTEX,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
		unix.SYS_GETRANDOM, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_RSEQ, unix.SYS_SET_ROBUST_LIST, unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	} {
		calls = append(calls, call{nr: nr})
	}
	return calls
}

// Where the kernel puts what a filter sees (struct seccomp_data).
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArg0 = 16 // low half; both architectures are little-endian
)

// filter is the allow-list as a program. Everything else fails with EPERM.
func filter(pid uint32) ([]unix.SockFilter, error) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return nil, fmt.Errorf("seccomp: no filter for %s", runtime.GOARCH)
	}
	const deny = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// equal jumps over yes or no instructions.
	equal := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: value}
	}
	end := func(with uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with} }

	prog := []unix.SockFilter{load(offsetArch), equal(arch, 1, 0), end(deny), load(offsetNr)}
	// Its flags are out of a filter's sight; libc takes clone then.
	prog = append(prog, equal(unix.SYS_CLONE3, 0, 1), end(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	for _, c := range allowed(pid) {
		if c.mask == 0 {
			prog = append(prog, equal(c.nr, 0, 1), end(unix.SECCOMP_RET_ALLOW))
			continue
		}
		prog = append(prog, equal(c.nr, 0, 5), load(offsetArg0),
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: c.mask},
			equal(c.want, 0, 1), end(unix.SECCOMP_RET_ALLOW), end(deny))
	}
	return append(prog, end(deny)), nil
}
