package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Check is one thing that a build needs of this machine.
type Check struct {
	Name  string
	OK    bool
	Found string // what is there
	Fix   string // what to do; "" if OK
}

// Place says where the things are that Checks looks at.
type Place struct {
	Runsc    string // as runsc.Find takes it
	Beside   string // as runsc.Find takes it
	Executor string // the executor's program file
	WorkDir  string
}

// Checks looks at everything that Run needs. Single settings come first, as the
// reasons; the last check is a whole sandbox, as the proof.
func Checks(ctx context.Context, p Place) []Check {
	m, err := currentMode()
	if err != nil {
		return []Check{{Name: "launcher", Found: err.Error(), Fix: "make /proc readable"}}
	}
	r, gvisor := checkRunsc(ctx, p)
	checks := []Check{
		checkMachine(), checkLauncher(m), gvisor, checkExecutor(p),
		checkUserns(m), checkPtrace(), checkSeccomp(), checkKVM(), checkDisk(p), checkCgroup(),
	}
	return append(checks, checkSandbox(ctx, p, r))
}

func check(name string, ok bool, found, fix string) Check {
	if ok {
		fix = ""
	}
	return Check{Name: name, OK: ok, Found: found, Fix: fix}
}

func checkMachine() Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return check("kernel", false, err.Error(), "use Linux")
	}
	arch := runtime.GOARCH
	return check("kernel", arch == "amd64" || arch == "arm64",
		fmt.Sprintf("Linux %s on %s", unix.ByteSliceToString(u.Release[:]), arch), "gVisor runs on amd64 and arm64")
}

func checkLauncher(m mode) Check {
	found := fmt.Sprintf("uid %d, in a user namespace of one id", os.Geteuid())
	if m == modeRoot {
		found = "root; the sandbox is nobody, in user namespaces of its own"
	}
	return check("launcher", true, found, "")
}

func checkRunsc(ctx context.Context, p Place) (*runsc.Runsc, Check) {
	r, err := runsc.Find(ctx, p.Runsc, p.Beside)
	if err == nil {
		return r, check("runsc", true, r.Path+", "+r.Version.Text, "")
	}
	fix := ""
	var e *runsc.Error
	if errors.As(err, &e) {
		fix = e.Hint
	}
	return nil, check("runsc", false, err.Error(), fix)
}

func checkExecutor(p Place) Check {
	info, err := os.Stat(p.Executor)
	if err != nil || !info.Mode().IsRegular() {
		return check("executor", false, fmt.Sprintf("%q is no program file", p.Executor), "put kbuild-executor beside kbuild-sandbox")
	}
	return check("executor", true, p.Executor, "")
}

// setting reads a number below /proc/sys; ok is false if the kernel lacks it.
func setting(name string) (int, bool) {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}

// checkUserns looks at the three switches that distributions have for user
// namespaces. Root is held back by the first alone.
func checkUserns(m mode) Check {
	const name = "user namespaces"
	most, ok := setting("user/max_user_namespaces")
	switch {
	case !ok:
		return check(name, false, "the kernel has none", "use a kernel with CONFIG_USER_NS")
	case most == 0:
		return check(name, false, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000")
	}
	found := fmt.Sprintf("at most %d", most)
	if m == modeRoot {
		return check(name, true, found, "")
	}
	if n, ok := setting("kernel/unprivileged_userns_clone"); ok && n == 0 {
		return check(name, false, "kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1, or run as root")
	}
	if n, ok := setting("kernel/apparmor_restrict_unprivileged_userns"); ok && n != 0 {
		return check(name, false, "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)",
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,` for runsc, or run as root")
	}
	return check(name, true, found, "")
}

// checkPtrace: gVisor's systrap attaches to its own children, which Yama
// forbids altogether at level 3 only.
func checkPtrace() Check {
	n, ok := setting("kernel/yama/ptrace_scope")
	if !ok {
		return check("ptrace", true, "not restricted", "")
	}
	return check("ptrace", n < 3, fmt.Sprintf("kernel.yama.ptrace_scope is %d", n),
		"gVisor needs ptrace on its own processes: boot with kernel.yama.ptrace_scope at 2 or less")
}

func checkSeccomp() Check {
	s, err := readStatus("/proc/self/status")
	if err != nil || s["Seccomp"] == "" {
		return check("seccomp", false, "the kernel has none", "use a kernel with CONFIG_SECCOMP_FILTER")
	}
	if s["Seccomp"] == "0" {
		return check("seccomp", true, "there, and none on the launcher", "")
	}
	return check("seccomp", true, "there; the launcher itself runs under a filter, which may forbid what gVisor needs", "")
}

// checkKVM is for information: the platform is systrap.
func checkKVM() Check {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		return check("kvm", true, "there; not used", "")
	}
	return check("kvm", true, "not there; not needed", "")
}

func checkDisk(p Place) Check {
	if err := checkLength(p.WorkDir); err != nil {
		return check("work directory", false, err.Error(), "use a shorter --work-dir")
	}
	free, err := freeSpace(p.WorkDir)
	if err != nil {
		return check("work directory", false, err.Error(), "name another one with --work-dir")
	}
	const enough = 4 << 30
	return check("work directory", free >= enough, fmt.Sprintf("%s, %d MiB free", p.WorkDir, free>>20),
		"a build wants some GiB: name a larger disk with --work-dir")
}

// checkCgroup is for information: limits are the caller's.
func checkCgroup() Check {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return check("cgroup", true, "none; a build is limited by nothing", "")
	}
	// Version 2 has a line of its own, also on machines that use both.
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return check("cgroup", true, strings.TrimSpace(path)+"; its limits hold for the build", "")
		}
	}
	return check("cgroup", true, "version 1; the limits of the launcher's groups hold for the build", "")
}

// checkSandbox builds an image without content.
func checkSandbox(ctx context.Context, p Place, r *runsc.Runsc) Check {
	const name = "sandbox"
	if r == nil {
		return check(name, false, "not tried without runsc", "see runsc above")
	}
	if err := os.MkdirAll(p.WorkDir, 0o777); err != nil {
		return check(name, false, err.Error(), "name another --work-dir")
	}
	dir, err := os.MkdirTemp(p.WorkDir, dirPrefix+"doctor-*")
	if err != nil {
		return check(name, false, err.Error(), "make the work directory writable")
	}
	defer os.RemoveAll(dir)
	res, err := Run(ctx, Config{
		Context: dir, DockerfileData: []byte("FROM scratch\nLABEL doctor=1\n"),
		Request:  request.Build{NoPush: true, DockerfileName: "Dockerfile"},
		Executor: p.Executor, Runsc: r, WorkDir: p.WorkDir,
	})
	var wall *WallError
	switch {
	case errors.As(err, &wall):
		return check(name, false, strings.TrimSpace(wall.Error()+"\n"+wall.Log), "see what is not in order above")
	case err != nil:
		return check(name, false, err.Error(), "see what is not in order above")
	case res.Failure != nil:
		return check(name, false, res.Failure.Message, "this is a fault of kbuild-sandbox: please report it")
	}
	return check(name, true, fmt.Sprintf("%s inside, seccomp %d", res.Posture.Kernel, res.Posture.Seccomp), "")
}
