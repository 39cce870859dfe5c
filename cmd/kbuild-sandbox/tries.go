package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// tries does what a sandbox will do, one thing after another, so that what the
// machine forbids has a name. What the settings rule out is not tried.
func tries(settings []finding) []finding {
	if slices.ContainsFunc(settings, func(f finding) bool { return f.name == namespacesName && !f.ok && !f.optional }) {
		return nil
	}
	list := []finding{tryNamespace()}
	if list[0].ok {
		list = append(list, tryNetwork())
	}
	return append(list, tryPtrace())
}

const namespacesName = "user namespaces"

// harmless is this program in a form that does nothing.
func harmless() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "version")
	cmd.Env = []string{}
	return cmd
}

// tryNamespace makes a user namespace with one id in it, as the launcher does,
// and another in that, as gVisor does. Root's too: its sentry is to be nobody.
func tryNamespace() finding {
	f := finding{name: "new namespace"}
	cmd := harmless()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	err := cmd.Run()
	switch {
	case err == nil:
		f.ok, f.found = true, "user, mount, PID and network namespaces can be made"
		return f
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		f.found = "there are too many user namespaces"
		f.hint = "sysctl user.max_user_namespaces=10000"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		f.found = "a user namespace must not be made"
		f.hint = "an AppArmor profile with userns for kbuild-sandbox, or run as root"
		if os.Geteuid() == 0 {
			f.hint = "run as another user than root, or with CAP_SETFCAP, which root's own number in a namespace needs"
		}
	default:
		f.found = "a user namespace cannot be made"
		f.hint = "a kernel with CONFIG_USER_NS is needed"
	}
	f.found += ": " + err.Error()
	return f
}

// tryNetwork makes the link to the gateway: a pair of virtual interfaces.
func tryNetwork() finding {
	f := finding{name: "network link", ok: true, found: "a veth pair can be made in a namespace of its own"}
	if err := sandbox.TryNetwork(); err != nil {
		f.ok = false
		f.found, _ = explain(err)
		f.hint = "modprobe veth; a kernel with CONFIG_VETH and CONFIG_PACKET is needed"
	}
	return f
}

// tryPtrace traces a child: gVisor's systrap platform does, to the processes in
// which the sandbox's programs run.
func tryPtrace() finding {
	f := finding{name: "ptrace", ok: true, found: "a child can be traced"}
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd := harmless()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	err := cmd.Start()
	if err == nil {
		_ = cmd.Process.Kill() // it has stopped at its beginning
		_, _ = cmd.Process.Wait()
		return f
	}
	f.ok, f.found = false, "a child must not be traced: "+err.Error()
	f.hint = "sysctl kernel.yama.ptrace_scope=1"
	return f
}

// limits are those of the launcher's own control group, which are the build's,
// and whether others can be set.
func limits() finding {
	f := finding{name: "limits", ok: true, optional: true, found: "none but the machine's"}
	if data, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(data)) {
			// Version 2 has a line of its own, also on machines that use both.
			if path, ok := strings.CutPrefix(line, "0::"); ok && strings.TrimSpace(path) != "/" {
				f.found = "those of control group " + strings.TrimSpace(path)
			}
		}
	}
	var some sandbox.Limits
	some.Memory, some.CPUQuota, some.Tasks = 1<<30, 100000, 4096
	if err := sandbox.TryLimits(some, request.Limits{}); err != nil {
		text, hint := explain(err)
		f.ok, f.hint = false, "builds work, but not with --memory, --cpus or --pids-limit; "+hint
		f.found += "; " + text
		return f
	}
	f.found += "; --memory, --cpus and --pids-limit can be had"
	return f
}
