package filter

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

func TestMain(m *testing.M) { insandbox.Main(m) }

func TestCheckTables(t *testing.T) {
	for name, table := range map[string]policy.Table{"run": policy.RunTable(), "executor": policy.ExecutorTable()} {
		if err := Check(table); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	rule := func(names []string, args ...policy.Arg) policy.Table {
		return policy.Table{Rules: []policy.Rule{{Names: names, Args: args}}}
	}
	for _, c := range []struct {
		name  string
		table policy.Table
		want  string
	}{
		{"unknown", rule([]string{"read", "frobnicate", "defenestrate"}), "frobnicate defenestrate"},
		{"index", rule([]string{"read"}, policy.Arg{Index: 6, Mask: 1}), "argument 6"},
		{"index twice", rule([]string{"read"}, policy.Arg{Index: 1, Mask: 1}, policy.Arg{Index: 1, Mask: 2}), "argument 1"},
		{"masked not", rule([]string{"read"}, policy.Arg{Mask: 1, Not: true}), "not supported"},
	} {
		if err := Check(c.table); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// filtered runs f on a thread of its own behind the RUN filter. The thread ends
// with it, so no other test is behind that filter.
func filtered(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := Load(policy.RunTable())
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRunTableInForce(t *testing.T) {
	call := func(nr uintptr, args ...uintptr) unix.Errno {
		var a [6]uintptr
		copy(a[:], args)
		_, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		return e
	}
	filtered(t, func() {
		if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || mode != 2 {
			t.Errorf("seccomp mode %d, %v", mode, err)
		}
		if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || nnp != 0 {
			t.Errorf("no_new_privs %d, %v", nnp, err)
		}
		const fchmodat2, future = 452, 999
		const noThread = 1 << 30 // so that nothing happens where the filter fails
		for _, c := range []struct {
			name string
			got  unix.Errno
			want unix.Errno
		}{
			{"unshare newuser", call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER), unix.EPERM},
			{"unshare nothing", call(unix.SYS_UNSHARE, 0), unix.EPERM},
			{"setns", call(unix.SYS_SETNS, ^uintptr(0)), unix.EPERM},
			{"clone newuser", call(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)), unix.EPERM},
			{"clone newns", call(unix.SYS_CLONE, unix.CLONE_NEWNS|uintptr(unix.SIGCHLD)), unix.EPERM},
			{"clone newpid", call(unix.SYS_CLONE, unix.CLONE_NEWPID|uintptr(unix.SIGCHLD)), unix.EPERM},
			{"clone newnet, newuser", call(unix.SYS_CLONE, unix.CLONE_NEWNET|unix.CLONE_NEWUSER), unix.EPERM},
			{"clone newuts", call(unix.SYS_CLONE, unix.CLONE_NEWUTS), unix.EPERM},
			{"clone newipc", call(unix.SYS_CLONE, unix.CLONE_NEWIPC), unix.EPERM},
			{"clone newcgroup", call(unix.SYS_CLONE, unix.CLONE_NEWCGROUP), unix.EPERM},
			{"clone3", call(unix.SYS_CLONE3, 0, 0), unix.ENOSYS},
			{"mount", call(unix.SYS_MOUNT, 0, 0, 0, 0, 0), unix.EPERM},
			{"ptrace", call(unix.SYS_PTRACE, unix.PTRACE_TRACEME), unix.EPERM},
			{"bpf", call(unix.SYS_BPF), unix.EPERM},
			{"vsock", call(unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM), unix.EPERM},
			{"vsock, with bits that the kernel ignores", call(unix.SYS_SOCKET, 1<<32|unix.AF_VSOCK, unix.SOCK_STREAM), unix.ENOSYS},
			{"packet socket", call(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300), unix.EPERM},
			{"raw TCP", call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP), unix.EPERM},
			{"raw IPv6", call(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW), unix.EPERM},
			{"the old packet socket", call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_PACKET, 0x0300), unix.ENOSYS},
			{"AF_ALG", call(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET), unix.ENOSYS},
			{"TCP", call(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC), 0},
			{"UDP", call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM), 0},
			{"netlink", call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), 0},
			{"fchmodat2", call(fchmodat2), unix.ENOSYS},
			{"a call of the future", call(future), unix.ENOSYS},
			{"personality of another system", call(unix.SYS_PERSONALITY, 0x5), unix.ENOSYS},
			{"personality, asked", call(unix.SYS_PERSONALITY, 0xffffffff), 0},
			{"SIGKILL to process 1", call(unix.SYS_TGKILL, 1, noThread, uintptr(unix.SIGKILL)), 0},
			{"another signal to process 1", call(unix.SYS_TGKILL, 1, noThread, uintptr(unix.SIGUSR1)), unix.ESRCH},
			{"SIGKILL to another process", call(unix.SYS_TGKILL, noThread, noThread, uintptr(unix.SIGKILL)), unix.ESRCH},
			{"getpid", call(unix.SYS_GETPID), 0},
		} {
			if c.got != c.want {
				t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
			}
		}
	})
	if err := unix.Unshare(unix.CLONE_NEWUTS); errors.Is(err, unix.EPERM) {
		t.Error("the filter reached another thread")
	}
}

func BenchmarkLoad(b *testing.B) {
	for range b.N {
		if err := Check(policy.RunTable()); err != nil {
			b.Fatal(err)
		}
	}
}

// As a list, the RUN filter took gVisor 5 ms each time that a process was made.
func TestFilterIsTree(t *testing.T) {
	f, err := compile(policy.RunTable())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if level, err := f.GetOptimize(); err != nil || level != binaryTree {
		t.Errorf("optimization level %d, %v", level, err)
	}
}
