package main

import (
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelFindings are the settings of the kernel that a sandbox depends on. sys
// is /proc/sys; a setting that is not there does not restrict.
func kernelFindings(sys fs.FS, root bool) []finding {
	return []finding{release(), userNamespaces(sys, root), ptraceScope(sys), seccompSupport(sys)}
}

func release() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{name: "kernel", found: err.Error()}
	}
	return finding{
		name: "kernel", ok: runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64",
		found: "Linux " + unix.ByteSliceToString(u.Release[:]) + " on " + runtime.GOARCH,
		hint:  "gVisor runs on amd64 and arm64",
	}
}

// userNamespaces: gVisor's processes live in one; whoever is not root needs the
// right to make it.
func userNamespaces(sys fs.FS, root bool) finding {
	f := finding{name: namespacesName, ok: true, found: "allowed"}
	if n, ok := setting(sys, "user/max_user_namespaces"); ok && n == 0 {
		f.ok, f.found = false, "user.max_user_namespaces is 0"
		f.hint = "sysctl user.max_user_namespaces=10000"
		return f // root's sandboxes have one too
	}
	if root {
		return f
	}
	if n, ok := setting(sys, "kernel/unprivileged_userns_clone"); ok && n == 0 {
		f.ok, f.found = false, "kernel.unprivileged_userns_clone is 0"
		f.hint = "sysctl kernel.unprivileged_userns_clone=1, or run as root"
		return f
	}
	if n, ok := setting(sys, "kernel/apparmor_restrict_unprivileged_userns"); ok && n != 0 {
		// A profile may still allow it for this program: starting a sandbox tells.
		f.ok, f.optional, f.found = false, true, "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns)"
		f.hint = "if no sandbox starts: allow it to this program, in /etc/apparmor.d/kbuild-sandbox, then apparmor_parser -r that file:\n" +
			"abi <abi/4.0>,\n" +
			"profile kbuild-sandbox " + ownFile() + " flags=(unconfined) { userns, }\n" +
			"or for all programs: sysctl kernel.apparmor_restrict_unprivileged_userns=0; or run as root"
	}
	return f
}

// ptraceScope: gVisor's systrap platform controls the sandbox's processes with
// ptrace.
func ptraceScope(sys fs.FS) finding {
	f := finding{name: "ptrace scope", ok: true, optional: true, found: "allowed"}
	if n, ok := setting(sys, "kernel/yama/ptrace_scope"); ok && n >= 2 {
		f.ok, f.found = false, "restricted: kernel.yama.ptrace_scope is "+strconv.FormatInt(n, 10)
		f.hint = "if no sandbox starts: sysctl kernel.yama.ptrace_scope=1"
	}
	return f
}

// seccompSupport: gVisor and the executor both load filters.
func seccompSupport(sys fs.FS) finding {
	actions, err := fs.ReadFile(sys, "kernel/seccomp/actions_avail")
	if err != nil {
		return finding{name: "seccomp", found: "the kernel has no seccomp filters", hint: "a kernel with CONFIG_SECCOMP_FILTER is needed"}
	}
	f := finding{name: "seccomp", ok: true, found: strings.TrimSpace(string(actions))}
	for _, needed := range []string{"errno", "allow", "trap", "kill_process"} {
		if !strings.Contains(" "+f.found+" ", " "+needed+" ") {
			f.ok, f.hint = false, "a kernel with the seccomp action "+needed+" is needed"
		}
	}
	return f
}

// setting is a number of /proc/sys.
func setting(sys fs.FS, name string) (int64, bool) {
	data, err := fs.ReadFile(sys, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// procSys is the running kernel's settings.
func procSys() fs.FS { return os.DirFS("/proc/sys") }

// ownFile is where this program lies.
func ownFile() string {
	path, err := os.Executable()
	if err != nil {
		return "/usr/bin/kbuild-sandbox"
	}
	return path
}
