package sandbox

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// goodBundle is what Run would start for a role.
func goodBundle(t testing.TB, c Config, m mode, role request.Role) bundleText {
	t.Helper()
	c, err := c.prepared()
	if err != nil {
		t.Fatal(err)
	}
	c = c.playing(role)
	l := homeOf(c.WorkDir + "/" + sampleName).of(role)
	s, err := newSpec(c, l, m)
	if err != nil {
		t.Fatal(err)
	}
	return bundleText{spec: s, flags: runsc.Table(l.settings(c, m)), c: c, l: l, m: m}
}

// What is made passes, for every role in both modes.
func TestLintPasses(t *testing.T) {
	for _, m := range []mode{modeRoot, modeUser} {
		for _, role := range roles {
			if err := goodBundle(t, sampleConfig(), m, role).lint(); err != nil {
				t.Errorf("mode %d, %s: %v", m, role, err)
			}
		}
	}
}

// mutation is one way in which a spec or a command line can be wrong.
type mutation struct {
	name string
	rule string // that has to fire
	do   func(*bundleText)
}

// inSpec changes the spec.
func inSpec(name, rule string, do func(*specs.Spec)) mutation {
	return mutation{name, rule, func(b *bundleText) { do(b.spec) }}
}

// withFlag changes the value of a flag, or adds it.
func withFlag(name, value string) mutation {
	return mutation{"--" + name + "=" + value, "flags", func(b *bundleText) {
		i := slices.IndexFunc(b.flags, func(f runsc.Flag) bool { return f.Name == name })
		if i < 0 {
			b.flags = append(b.flags, runsc.Flag{Name: name, Value: value})
			return
		}
		b.flags = slices.Clone(b.flags)
		b.flags[i].Value = value
	}}
}

// onMount changes the mount on a place.
func onMount(place, name string, do func(*specs.Mount)) mutation {
	return inSpec(name, "mounts", func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == place {
				do(&s.Mounts[i])
			}
		}
	})
}

func addMount(m specs.Mount) mutation {
	return inSpec("mount of "+m.Source+" on "+m.Destination, "mounts", func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) })
}

func specMutations() []mutation {
	ro := []string{"ro", "nosuid", "nodev"}
	return slices.Concat([]mutation{
		inSpec("hook", "nothing more", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh"}}} }),
		inSpec("device", "nothing more", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm"}} }),
		inSpec("sysctl", "nothing more", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a": "b"} }),
		inSpec("resources", "nothing more", func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{} }),
		inSpec("cgroup path", "nothing more", func(s *specs.Spec) { s.Linux.CgroupsPath = "/" }),
		inSpec("propagation", "nothing more", func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }),
		inSpec("masked path", "nothing more", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/x"} }),
		inSpec("terminal", "nothing more", func(s *specs.Spec) { s.Process.Terminal = true }),
		inSpec("user", "nothing more", func(s *specs.Spec) { s.Process.User.UID = 1 }),
		inSpec("group", "nothing more", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{0} }),
		inSpec("no_new_privs", "nothing more", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }),
		inSpec("host name", "nothing more", func(s *specs.Spec) { s.Hostname = evil }),
		inSpec("no linux section", "nothing more", func(s *specs.Spec) { s.Linux = nil }),
		inSpec("annotation of a flag", "annotations", func(s *specs.Spec) { s.Annotations["dev.gvisor.flag.host-uds"] = "all" }),
		inSpec("annotation without seccomp", "annotations", func(s *specs.Spec) { s.Annotations["dev.gvisor.internal.seccomp.b"] = "RuntimeDefault" }),
		inSpec("workspace elsewhere", "annotations", func(s *specs.Spec) { s.Annotations["dev.gvisor.spec.mount.w.source"] = "/etc" }),
		inSpec("workspace of the host", "annotations", func(s *specs.Spec) { s.Annotations["dev.gvisor.spec.mount.w.type"] = "bind" }),
		inSpec("no annotation", "annotations", func(s *specs.Spec) { s.Annotations = nil }),
		inSpec("another program", "process", func(s *specs.Spec) { s.Process.Args = []string{"/context/evil"} }),
		inSpec("an argument more", "process", func(s *specs.Spec) { s.Process.Args = append(s.Process.Args, evil) }),
		inSpec("environment", "process", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "LD_PRELOAD=/context/evil") }),
		inSpec("directory", "process", func(s *specs.Spec) { s.Process.Cwd = "/context" }),
		inSpec("limits", "process", func(s *specs.Spec) { s.Process.Rlimits[0].Hard++ }),
		inSpec("no limits", "process", func(s *specs.Spec) { s.Process.Rlimits = nil }),
		inSpec("no filter", "seccomp", func(s *specs.Spec) { s.Linux.Seccomp = nil }),
		inSpec("filter that allows", "seccomp", func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = specs.ActAllow }),
		inSpec("filter that logs", "seccomp", func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Action = specs.ActLog }),
		inSpec("filter with a listener", "seccomp", func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/x" }),
		inSpec("empty filter", "seccomp", func(s *specs.Spec) { s.Linux.Seccomp.Syscalls = nil }),
		inSpec("filter with ptrace", "seccomp", func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls[0].Names = append(slices.Clone(s.Linux.Seccomp.Syscalls[0].Names), "ptrace")
		}),
		inSpec("CAP_SYS_MODULE", "capabilities", func(s *specs.Spec) {
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_MODULE")
		}),
		inSpec("ambient", "capabilities", func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"} }),
		inSpec("inheritable", "capabilities", func(s *specs.Spec) { s.Process.Capabilities.Inheritable = []string{"CAP_CHOWN"} }),
		inSpec("no capabilities", "capabilities", func(s *specs.Spec) { s.Process.Capabilities = nil }),
		inSpec("writable root", "read-only root", func(s *specs.Spec) { s.Root.Readonly = false }),
		inSpec("host's root", "read-only root", func(s *specs.Spec) { s.Root.Path = "/" }),
		inSpec("no PID namespace", "namespaces", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }),
		inSpec("PID namespace of the host", "namespaces", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" }),
		inSpec("network of the host", "namespaces", func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
					s.Linux.Namespaces[i].Path = "/proc/1/ns/net"
				}
			}
		}),
		inSpec("ids of the host", "namespaces", func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1}}
		}),
	}, mountMutations(ro))
}

func mountMutations(ro []string) []mutation {
	return []mutation{
		onMount(guestContext, "writable context", func(m *specs.Mount) { m.Options = []string{"rw", "nosuid", "nodev"} }),
		onMount(guestContext, "context without ro", func(m *specs.Mount) { m.Options = []string{"nosuid", "nodev"} }),
		onMount(guestContext, "context with devices", func(m *specs.Mount) { m.Options = []string{"ro", "nosuid"} }),
		onMount(guestContext, "shared context", func(m *specs.Mount) { m.Options = append(m.Options, "rshared") }),
		onMount(guestContext, "another directory", func(m *specs.Mount) { m.Source = "/etc" }),
		onMount(guestContext, "a way out", func(m *specs.Mount) { m.Source += "/../.." }),
		onMount(guestContext, "mapped ids", func(m *specs.Mount) { m.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }),
		onMount(guestExecutor, "no executor", func(m *specs.Mount) { m.Destination = "/caches" }),
		onMount(guestWork, "workspace of the host", func(m *specs.Mount) { m.Source = "/var/tmp" }),
		onMount("/proc", "host's /proc", func(m *specs.Mount) { m.Type, m.Source, m.Options = "bind", "/proc", ro }),
		onMount("/sys", "writable /sys", func(m *specs.Mount) { m.Options = m.Options[:len(m.Options)-1] }),
		onMount("/tmp", "option of a tenant", func(m *specs.Mount) { m.Options = append(m.Options, evil) }),
		addMount(specs.Mount{Destination: "/contexts/9", Type: "bind", Source: "/", Options: ro}),
		addMount(specs.Mount{Destination: "/contexts/9", Type: "bind", Source: "/var/run/docker.sock", Options: ro}),
		addMount(specs.Mount{Destination: "/etc", Type: "bind", Source: "/home/user/app", Options: ro}),
		addMount(specs.Mount{Destination: "/context", Type: "bind", Source: "/home/user/app", Options: ro}),
		addMount(specs.Mount{Destination: "/cgroup", Type: "cgroup", Source: "cgroup", Options: ro}),
		addMount(specs.Mount{Destination: "/caches", Type: "bind", Source: "/var/tmp", Options: ro}),
	}
}

func flagMutations() []mutation {
	list := []mutation{
		withFlag("oci-seccomp", "false"), withFlag("rootless", "true"), withFlag("network", "host"), withFlag("host-uds", "all"),
		withFlag("host-uds", "open"), withFlag("host-fifo", "open"), withFlag("allow-flag-override", "true"), withFlag("overlay2", "all:memory"),
		withFlag("file-access", "shared"), withFlag("file-access-mounts", "shared"), withFlag("directfs", "true"), withFlag("platform", "ptrace"),
		withFlag("character-device-policy", "host"), withFlag("gofer-network-namespace", "host"), withFlag("root", "/run/runsc"),
		withFlag("log", "/etc/passwd"), withFlag("debug", "true"), withFlag("debug-log", "/tmp/"), withFlag("nvproxy", "true"),
		withFlag("fuse", "true"), withFlag("profile", "true"), withFlag("TESTONLY-unsafe-nonroot", "true"), withFlag("allow-suid", "false"),
		{"a flag twice", "flags", func(b *bundleText) { b.flags = append(b.flags, b.flags[0]) }},
	}
	for i, f := range runsc.Table(runsc.Settings{Root: "/r"}) {
		if slices.Contains(tuning(), f.Name) {
			continue
		}
		list = append(list, mutation{"without --" + f.Name, "flags", func(b *bundleText) { b.flags = slices.Delete(slices.Clone(b.flags), i, i+1) }})
	}
	return list
}

// Each rule fires, and none but the one that is meant.
func TestLintFires(t *testing.T) {
	for _, m := range slices.Concat(specMutations(), flagMutations()) {
		b := goodBundle(t, sampleConfig(), modeRoot, request.RoleBuild)
		b.spec.Annotations = maps.Clone(b.spec.Annotations)
		m.do(&b)
		var we *WallError
		if err := b.lint(); !errors.As(err, &we) || we.Wall != "spec" || !strings.Contains(we.Msg, m.rule) || we.Hint == "" {
			t.Errorf("%s: %v, want rule %q", m.name, err, m.rule)
		}
	}
}

// A config.json that is not what the linter knows is not started.
func TestLintReadsTheFile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(string) string
		err    string
	}{
		{"as it is", func(s string) string { return s }, ""},
		{"unknown part", func(s string) string { return strings.Replace(s, "{", `{"zos":{},"escape":true,`, 1) }, "unknown field"},
		{"writable root", func(s string) string { return strings.Replace(s, `"readonly":true`, `"readonly":false`, 1) }, "read-only root"},
		{"no JSON", func(string) string { return "{" }, "cannot be read"},
	} {
		c := sampleConfig()
		c.WorkDir = t.TempDir()
		b := goodBundle(t, c, modeRoot, request.RoleBuild)
		data, err := json.Marshal(b.spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(b.l.bundle, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.l.bundle+"/config.json", []byte(tt.change(string(data))), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = lintBundle(b.c, b.l, b.m, b.flags)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzLint: whatever a tenant writes into a request, the spec and the flags are
// the same to the byte (rule R1).
func FuzzLint(f *testing.F) {
	f.Add("dev.gvisor.flag.host-uds=all", "../../etc", "rw,size=1")
	f.Add("\x00", "/proc/self/exe", "--network=host")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		plain, hostile := sampleConfig(), sampleConfig()
		hostile.Request = request.Build{
			DockerfileName: one, Target: two, Platforms: []string{three}, Call: request.Call(one), Format: two,
			Args: []request.KeyValue{{Key: one, Value: two}}, Labels: []request.KeyValue{{Key: two, Value: three}},
			Run:          request.Run{Hostname: one, DNS: []string{two}, Network: three, Hosts: []request.KeyValue{{Key: one, Value: three}}},
			Destinations: []string{three}, Allow: []string{one}, Secrets: []string{two}, Agents: []string{three},
			Contexts: []request.NamedContext{{Name: one, Dir: "/home/user/assets"}, {Name: two, Image: three}, {Name: one, Layout: "/srv/layout", Ref: three}},
			Registry: request.Registry{InsecureHosts: []string{one}, Maps: []request.Mirror{{Host: two, Location: three}}},
		}
		hostile.DockerfileData = []byte(one + two + three)
		for _, m := range []mode{modeRoot, modeUser} {
			for _, role := range roles {
				want, got := goodBundle(t, plain, m, role), goodBundle(t, hostile, m, role)
				if err := got.lint(); err != nil {
					t.Fatal(err)
				}
				if asJSON(want.spec) != asJSON(got.spec) || asJSON(want.flags) != asJSON(got.flags) {
					t.Fatalf("%s: a tenant's string changes the spec: %s", role, asJSON(got.spec))
				}
			}
		}
	})
}
