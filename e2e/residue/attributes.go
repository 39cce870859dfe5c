package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes are what a process has and its children inherit.
func attributes() []kind {
	return []kind{
		left("an environment variable", func() error { return os.Setenv("RESIDUE", "1") }, func() bool { return os.Getenv("RESIDUE") != "" }),
		left("a file mode mask", func() error { unix.Umask(0o077); return nil }, func() bool { m := unix.Umask(0o022); unix.Umask(m); return m == 0o077 }),
		left("a working directory", func() error { return os.Chdir("/etc") }, func() bool { d, _ := os.Getwd(); return d == "/etc" }),
		left("a resource limit", lowerLimit, limitLowered),
		left("a nice value", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 7) }, func() bool {
			n, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice
			return err == nil && n == 13
		}),
		left("an adjustment of the OOM killer", func() error { return write("/proc/self/oom_score_adj", "500") }, contains("/proc/self/oom_score_adj", "500")),
		left("a descriptor", leaveDescriptor, func() bool { _, err := unix.FcntlInt(99, unix.F_GETFD, 0); return err == nil }),
		left("an ignored signal", func() error { signal.Ignore(syscall.SIGUSR2); return nil }, func() bool { return signal.Ignored(syscall.SIGUSR2) }),
		left("a supplementary group", func() error { return syscall.Setgroups([]int{0, 4242}) }, func() bool {
			groups, err := os.Getgroups()
			if err != nil {
				return false
			}
			for _, g := range groups {
				if g == 4242 {
					return true
				}
			}
			return false
		}),
	}
}

func lowerLimit() error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 4242, Max: 4242})
}

func limitLowered() bool {
	var l unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_CORE, &l) == nil && l.Max == 4242
}

func leaveDescriptor() error {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Dup3(fd, 99, 0), unix.Close(fd))
}
