package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// bundleText is what runsc is about to be started with: the spec as it stands in
// config.json, the flags, and what the launcher's caller named.
type bundleText struct {
	spec  *specs.Spec
	flags runsc.Flags
	c     Config
	l     layout
	m     mode
}

// maxSpec bounds config.json, in bytes.
const maxSpec = 4 << 20

// lintBundle reads config.json as runsc will and returns it if no rule is
// broken. The spec is made by code that changes; what must not change is said
// here a second time, as data, and looked at before every start.
func lintBundle(c Config, l layout, m mode, flags runsc.Flags) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(l.bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("check spec: %w", err)
	}
	defer f.Close()
	data, err := readRegular(f, maxSpec)
	if err != nil {
		return nil, fmt.Errorf("check spec: %w", err)
	}
	b := bundleText{spec: &specs.Spec{}, flags: flags, c: c, l: l, m: m}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(b.spec); err != nil {
		return nil, &WallError{Wall: "spec", Msg: "config.json cannot be read", Err: err}
	}
	return b.spec, b.lint()
}

// lint applies every rule. The rules' names are those of the security notes.
func (b bundleText) lint() error {
	for _, r := range []struct {
		name  string
		check func() string
	}{
		{"R1, nothing more in the spec", b.nothingMore}, {"R1, annotations", b.annotations}, {"R1, process", b.process},
		{"R1, mounts", b.mounts}, {"R2, seccomp", b.seccomp}, {"R6, capabilities", b.capabilities},
		{"R8, read-only root", b.root}, {"R10 to R12, flags", b.flagValues}, {"R11, namespaces", b.namespaces},
	} {
		if msg := r.check(); msg != "" {
			return &WallError{Wall: "spec", Msg: "rule " + r.name + ": " + msg, Hint: "this is a fault of kbuild-sandbox: please report it"}
		}
	}
	return nil
}

// nothingMore: apart from what the other rules look at, the spec is empty: no
// hook, device, sysctl, resource, label, propagation or personality.
func (b bundleText) nothingMore() string {
	s := *b.spec
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return "a part is missing"
	}
	p, l := *s.Process, *s.Linux
	p.Args, p.Env, p.Cwd, p.Capabilities, p.Rlimits = nil, nil, "", nil, nil
	l.Namespaces, l.UIDMappings, l.GIDMappings, l.Seccomp = nil, nil, nil, nil
	s.Version, s.Hostname, s.Process, s.Root, s.Linux, s.Mounts, s.Annotations = "", "", nil, nil, nil, nil, nil
	switch {
	case !reflect.DeepEqual(s, specs.Spec{}):
		return "it has a part that is not known: " + asJSON(s)
	case !reflect.DeepEqual(p, specs.Process{}):
		return "the process has a part that is not known: " + asJSON(p)
	case !reflect.DeepEqual(l, specs.Linux{}):
		return "the linux section has a part that is not known: " + asJSON(l)
	case b.spec.Version != ociVersion || b.spec.Hostname != "kbuild-sandbox":
		return "version or host name"
	}
	return ""
}

// annotations: those of the workspace, and they can change nothing else (with
// dev.gvisor.flag.* and dev.gvisor.internal.* they could).
func (b bundleText) annotations() string {
	want := map[string]string{}
	if slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Destination == guestWork }) {
		want = workspace(b.l, b.c.Quota)
	}
	if !maps.Equal(b.spec.Annotations, want) {
		return fmt.Sprintf("they are %q", b.spec.Annotations)
	}
	const hint = "dev.gvisor.spec.mount.w."
	for name, value := range want {
		size := strings.TrimPrefix(value, "rw,size=")
		_, err := strconv.ParseUint(size, 10, 63)
		switch name {
		case hint + "source", hint + "type", hint + "share":
		case hint + "options":
			if err != nil {
				return fmt.Sprintf("the workspace's options are %q", value)
			}
		default:
			return fmt.Sprintf("%q is not the workspace's", name)
		}
	}
	return ""
}

// process: the executor, as root of the sandbox, with an environment that says
// nothing about the build.
func (b bundleText) process() string {
	p := b.spec.Process
	switch {
	case !slices.Equal(p.Args, []string{guestExecutor, "sandboxed"}):
		return fmt.Sprintf("it is %q", p.Args)
	case !slices.Equal(p.Env, []string{"PATH=/", "HOME=" + guestWork, "TMPDIR=" + guestWork}):
		return fmt.Sprintf("its environment is %q", p.Env)
	case p.Cwd != "/":
		return fmt.Sprintf("its directory is %q", p.Cwd)
	case len(p.Rlimits) != 1 || p.Rlimits[0].Type != "RLIMIT_NOFILE" || p.Rlimits[0].Hard > maxFiles || p.Rlimits[0].Soft > p.Rlimits[0].Hard:
		return fmt.Sprintf("its limits are %v", p.Rlimits)
	}
	return ""
}

// seccomp: an allow-list, as the policy has it, that knows no action but to
// allow and to fail (rule R3), and that leaves out what must fail in any case.
func (b bundleText) seccomp() string {
	s := b.spec.Linux.Seccomp
	switch want, err := seccomp(policy.ExecutorTable()); {
	case s == nil:
		return "there is no filter"
	case s.DefaultAction != specs.ActErrno || s.ListenerPath != "" || len(s.Flags) > 0 || s.DefaultErrnoRet != nil:
		return fmt.Sprintf("the default is %s, flags %q", s.DefaultAction, s.Flags)
	case err != nil:
		return err.Error()
	case !reflect.DeepEqual(s, want):
		return "the filter is not the policy's"
	}
	for _, r := range b.spec.Linux.Seccomp.Syscalls {
		if r.Action != specs.ActAllow {
			return fmt.Sprintf("%q has the action %s", r.Names, r.Action)
		}
		for _, name := range r.Names {
			if slices.Contains(neverAllowed(), name) || slices.Contains(policy.ExecutorDenies(), name) {
				return name + " is allowed"
			}
		}
	}
	return ""
}

// neverAllowed are system calls that no change of the policy may let in
// unnoticed (rule R5), beside policy.ExecutorDenies.
func neverAllowed() []string {
	return []string{
		"add_key", "bpf", "clock_settime", "delete_module", "finit_module", "fsmount", "fsopen", "init_module",
		"io_uring_enter", "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load", "move_mount",
		"name_to_handle_at", "open_by_handle_at", "open_tree", "pidfd_getfd", "process_vm_writev", "quotactl", "reboot",
		"request_key", "settimeofday", "swapoff", "swapon", "userfaultfd",
	}
}

// capabilities: at most the policy's, none that exec hands on by itself.
func (b bundleText) capabilities() string {
	c := b.spec.Process.Capabilities
	if c == nil {
		return "there are none given, and gVisor would choose"
	}
	if len(c.Inheritable) > 0 || len(c.Ambient) > 0 {
		return "some are inheritable or ambient"
	}
	allowed := policy.ExecutorCapabilities()
	for _, set := range [][]string{c.Bounding, c.Permitted, c.Effective} {
		for _, name := range set {
			if !slices.Contains(allowed, name) {
				return name + " is not the policy's"
			}
		}
	}
	return ""
}

// root: the program lies on it, and whoever writes it runs it (rule R8).
func (b bundleText) root() string {
	if r := b.spec.Root; !r.Readonly || r.Path != b.l.rootfs {
		return fmt.Sprintf("%q, read-only %v", r.Path, r.Readonly)
	}
	return ""
}

// namespaces: new ones, but for that of the network, in which the link is.
func (b bundleText) namespaces() string {
	left := map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "", specs.MountNamespace: "", specs.IPCNamespace: "", specs.UTSNamespace: "",
	}
	left[specs.NetworkNamespace] = map[string]string{"sandbox": ownNetwork}[b.flags.Get("network")]
	ids := []specs.LinuxIDMapping(nil)
	if b.m == modeRoot {
		left[specs.UserNamespace], ids = "", nobodyMap()
	}
	for _, n := range b.spec.Linux.Namespaces {
		if path, ok := left[n.Type]; !ok || n.Path != path {
			return fmt.Sprintf("%s with path %q", n.Type, n.Path)
		}
		delete(left, n.Type)
	}
	switch {
	case len(left) > 0:
		return fmt.Sprintf("%q are missing", slices.Sorted(maps.Keys(left)))
	case !slices.Equal(b.spec.Linux.UIDMappings, ids) || !slices.Equal(b.spec.Linux.GIDMappings, ids):
		return "the ids are not mapped to nobody"
	}
	return ""
}

// ownNetwork is the namespace that runsc itself was started in.
const ownNetwork = "/proc/self/ns/net"

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
