package step

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// audit is a command in a stage: it prints what it sees and what it could do.
func audit(args []string) int {
	switch args[0] {
	case "status":
		auditStatus()
	case "fds":
		auditFDs()
	case "calls":
		auditCalls()
	case "escape":
		auditEscape()
	case "agent":
		auditAgent(args[1:])
	case "clone":
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		fmt.Println(cmd.Run())
	default:
		return 2
	}
	return 0
}

func auditStatus() {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "Seccomp") || strings.HasPrefix(line, "NoNewPrivs") {
			fmt.Print(strings.ReplaceAll(line, "\t", " "))
		}
	}
}

// auditFDs lists what is open, asking for each number.
func auditFDs() {
	for fd := range 1024 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		// The Go runtime of the auditor has an epoll of its own.
		if kind := st.Mode & unix.S_IFMT; fd < 3 || kind == unix.S_IFDIR || kind == unix.S_IFREG || kind == unix.S_IFSOCK || kind == unix.S_IFIFO {
			fmt.Printf("%d %o\n", fd, kind>>12)
		}
	}
}

func auditCalls() {
	call := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		fmt.Printf("%s: %v\n", name, e)
	}
	str := func(s string) uintptr {
		p, _ := unix.BytePtrFromString(s)
		return uintptr(unsafe.Pointer(p))
	}
	call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	call("setns", unix.SYS_SETNS, 0, 0)
	call("clone user", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD))
	call("clone3", unix.SYS_CLONE3, 0, 0)
	call("mount", unix.SYS_MOUNT, str("tmpfs"), str("/tmp"), str("tmpfs"), 0, 0)
	call("umount", unix.SYS_UMOUNT2, str("/proc"), unix.MNT_DETACH)
	call("pivot_root", unix.SYS_PIVOT_ROOT, str("/"), str("/tmp"))
	call("ptrace", unix.SYS_PTRACE, unix.PTRACE_TRACEME)
	call("sethostname", unix.SYS_SETHOSTNAME, str("x"), 1)
	call("keyctl", unix.SYS_KEYCTL)
	call("bpf", unix.SYS_BPF)
	call("io_uring_setup", unix.SYS_IO_URING_SETUP)
	call("process_vm_readv", unix.SYS_PROCESS_VM_READV, 1)
	call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0)
	call("chroot", unix.SYS_CHROOT, str("/"))
}

// auditEscape tries to see what is not of the stage.
func auditEscape() {
	exe, _ := os.Readlink("/proc/1/exe")
	fmt.Println("exe", exe)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	fmt.Println("processes", procs)
	seen := func() {
		for _, p := range []string{"/src", "/w", "/test", "/in", "/context", "/kbuild-executor"} {
			if _, err := os.Lstat(p); err == nil {
				fmt.Println("seen:", p)
			}
		}
	}
	seen()
	names, _ := os.ReadDir("/proc/gvisor")
	fmt.Println("gvisor", len(names))
	for _, file := range []string{"/proc/sys/kernel/hostname", "/sys/x", "/proc/sysrq-trigger", "/etc/hosts"} {
		fmt.Println(os.WriteFile(file, []byte("0"), 0o644) != nil)
	}
	status, _ := os.ReadFile("/proc/sentry-meminfo")
	env, _ := os.ReadFile("/proc/self/environ")
	fmt.Println(len(status), strings.Contains(string(env), "GOGC"), strings.Contains(string(env), "KBUILD"))
	// The classic way out of a plain chroot.
	fmt.Println(os.Mkdir("/tmp/jail", 0o755), unix.Chroot("/tmp/jail"))
	for range 20 {
		_ = unix.Chdir("..")
	}
	fmt.Println(unix.Chroot("."))
	seen()
}

func auditor(args ...string) *plan.Run {
	return &plan.Run{Args: append([]string{"/bin/auditor"}, args...), Cwd: "/"}
}

// TestRunRights: rules R2, R6 and R7 as the command sees them.
func TestRunRights(t *testing.T) {
	const root, none = "00000000a80425fb", "0000000000000000"
	status := func(prm, bnd string) string {
		return fmt.Sprintf("CapInh: %s\nCapPrm: %s\nCapEff: %s\nCapBnd: %s\nCapAmb: %s\nNoNewPrivs: 0\nSeccomp: 2\n",
			none, prm, prm, bnd, none)
	}
	b := newBench(t)
	b.want(auditor("status"), status(root, root))
	user := auditor("status")
	user.User = "app"
	b.want(user, status(none, root))
}

// TestRunDescriptors: rule R9, with a descriptor that the executor forgot.
func TestRunDescriptors(t *testing.T) {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // without CLOEXEC
	must(t, err)
	defer unix.Close(fd)
	newBench(t).want(auditor("fds"), "0 2\n1 1\n2 1\n")
}

// TestRunCalls: rule R5 as the command sees it.
func TestRunCalls(t *testing.T) {
	b := newBench(t)
	out, _, err := b.do(auditor("calls"))
	must(t, err)
	for line := range strings.Lines(out) {
		name, got, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want := unix.EPERM.Error()
		switch name {
		case "clone3":
			want = unix.ENOSYS.Error()
		case "chroot":
			want = syscall.Errno(0).Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	b.want(auditor("clone"), "fork/exec /bin/true: operation not permitted\n")
}

func TestRunSeesOnlyTheStage(t *testing.T) {
	b := newBench(t)
	out, _, err := b.do(auditor("escape"))
	must(t, err)
	want := []string{
		"exe /bin/auditor", "processes [/proc/1]", "gvisor 0", "true", "true", "true", "true", "0 false false",
		"<nil> <nil>", "<nil>", "",
	}
	if got := strings.Split(out, "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}
