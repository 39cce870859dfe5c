package policy

// ordinary are the system calls that any program may make, grouped by purpose.
// Docker's default list is the reference; what gVisor does not have is not
// named, nor are calls of 32-bit programs, which it does not run.
func ordinary() []Rule {
	return append([]Rule{
		allow("file contents", fileContents()),
		allow("file names and attributes", fileNames()),
		allow("extended attributes", attributes()),
		allow("memory", memory()),
		allow("processes", processes()),
		allow("identity and limits", identity()),
		allow("scheduling", scheduling()),
		allow("signals", signals()),
		allow("time", clocks()),
		allow("waiting for events", events()),
		allow("sockets", sockets()),
		allow("System V and POSIX IPC", ipc()),
		allow("the machine", []string{"getcpu", "getrandom", "sysinfo", "uname"}),
	}, newSockets()...)
}

func allow(purpose string, names []string) Rule { return Rule{For: purpose, Names: names} }

func fileContents() []string {
	return []string{
		"close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "fadvise64",
		"fallocate", "fcntl", "fdatasync", "flock", "fsync", "ftruncate", "ioctl", "lseek",
		"memfd_create", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2",
		"pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "splice", "sync",
		"sync_file_range", "syncfs", "tee", "truncate", "write", "writev",
		// Asynchronous I/O of before io_uring: databases in their build tests.
		"io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
	}
}

func fileNames() []string {
	return []string{
		"access", "chdir", "chmod", "chown", "faccessat", "faccessat2", "fchdir", "fchmod", "fchmodat",
		"fchown", "fchownat", "fstat", "fstatfs", "futimesat", "getcwd", "getdents", "getdents64",
		"inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "lchown", "link",
		"linkat", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "readlink",
		"readlinkat", "rename", "renameat", "renameat2", "rmdir", "stat", "statfs", "statx", "symlink",
		"symlinkat", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes",
		// debootstrap, mkinitramfs and dpkg --root need it. It takes nothing from
		// the walls: those are pivot_root and a mount namespace (R15).
		"chroot",
	}
}

func attributes() []string {
	return []string{
		"fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "lgetxattr", "listxattr",
		"llistxattr", "lremovexattr", "lsetxattr", "removexattr", "setxattr",
	}
}

func memory() []string {
	return []string{
		"brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
		"mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
		"pkey_mprotect", "remap_file_pages",
	}
}

// processes lacks clone, clone3 and kill: the tables say what of them is allowed.
func processes() []string {
	return []string{
		"arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "futex", "get_robust_list",
		"get_thread_area", "getpgid", "getpgrp", "getpid", "getppid", "getsid", "gettid",
		"modify_ldt", "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq", "seccomp",
		"set_robust_list", "set_thread_area", "set_tid_address", "setpgid", "setsid",
		"vfork", "wait4", "waitid",
	}
}

func identity() []string {
	return []string{
		"capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid",
		"getrlimit", "getrusage", "getuid", "prlimit64", "setfsgid", "setfsuid", "setgid", "setgroups",
		"setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setuid",
	}
}

func scheduling() []string {
	return []string{
		"getpriority", "ioprio_get", "ioprio_set", "sched_get_priority_max", "sched_get_priority_min",
		"sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
		"sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
		"sched_setscheduler", "sched_yield", "setpriority",
	}
}

func signals() []string {
	return []string{
		"pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
		"rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4",
	}
}

// clocks has nothing that sets one.
func clocks() []string {
	return []string{
		"adjtimex", "alarm", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep",
		"getitimer", "gettimeofday", "nanosleep", "setitimer", "time", "timer_create", "timer_delete",
		"timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
		"timerfd_settime", "times",
	}
}

func events() []string {
	return []string{
		"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
		"eventfd", "eventfd2", "poll", "ppoll", "pselect6", "select",
	}
}

func sockets() []string {
	return []string{
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
		"recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
		"socketpair",
	}
}

// Families, types and protocols of sockets (linux/socket.h, linux/net.h, linux/in.h).
const (
	familyUnix, familyINET, familyINET6, familyNetlink, familyPacket, familyVSOCK = 1, 2, 10, 16, 17, 40

	typeMask                       = 0xf // the rest are flags
	typeStream, typeDgram, typeRaw = 1, 2, 3

	protocolICMP, protocolICMPv6 = 1, 58
)

// newSockets are the kinds of sockets that may be made. The steps of a build and
// the executor share a network, so none hears all of it or speaks for others:
// no packet sockets, and raw ones for ping alone.
func newSockets() []Rule {
	rules := []Rule{
		socketRule("sockets between processes", familyUnix),
		socketRule("routes and interfaces, asked", familyNetlink),
	}
	for _, f := range []struct{ family, icmp uint64 }{{familyINET, protocolICMP}, {familyINET6, protocolICMPv6}} {
		rules = append(rules,
			socketRule("TCP", f.family, Arg{Index: 1, Mask: typeMask, Value: typeStream}),
			socketRule("UDP and ping", f.family, Arg{Index: 1, Mask: typeMask, Value: typeDgram}),
			socketRule("ping", f.family, Arg{Index: 1, Mask: typeMask, Value: typeRaw}, Arg{Index: 2, Mask: AllBits, Value: f.icmp}),
		)
	}
	return rules
}

// socketRule allows socket(2) of a family under further conditions.
func socketRule(purpose string, family uint64, more ...Arg) Rule {
	return Rule{For: purpose, Names: []string{"socket"}, Args: append([]Arg{{Index: 0, Mask: AllBits, Value: family}}, more...)}
}

func ipc() []string {
	return []string{
		"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
		"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat",
		"shmctl", "shmdt", "shmget",
	}
}
