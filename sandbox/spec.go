package sandbox

import (
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// ociVersion is the version of the OCI runtime specification in use.
const ociVersion = "1.2.0"

// sampleName stands for the random name of a run's directory in what Spec
// returns.
const sampleName = dirPrefix + "ID"

// Spec returns the OCI spec and runsc's flags that Run would use for one role,
// without starting or writing anything. The run's own directory, which is random, is
// called kbuild-sandbox-ID in it.
func Spec(c Config, role request.Role) (*specs.Spec, runsc.Flags, error) {
	m, err := currentMode()
	if err != nil {
		return nil, nil, err
	}
	c, err = c.prepared()
	if err != nil {
		return nil, nil, err
	}
	if c.Quota, err = workspaceQuota(c); err != nil {
		return nil, nil, err
	}
	c = c.playing(role)
	l := homeOf(filepath.Join(c.WorkDir, sampleName)).of(role)
	s, err := newSpec(c, l, m)
	if err != nil {
		return nil, nil, err
	}
	return s, runsc.Table(l.settings(c, m)), nil
}

// newSpec folds the parts of a spec into one. Nothing that a tenant wrote goes
// in (rule R1): not a word of the Dockerfile, of the request or of an image.
func newSpec(c Config, l layout, m mode) (*specs.Spec, error) {
	s := &specs.Spec{Version: ociVersion, Linux: &specs.Linux{}}
	for _, part := range []func(*specs.Spec) error{
		process, root(l), storage(c, l), namespaces(m), networkNamespace(c), filter,
	} {
		if err := part(s); err != nil {
			return nil, fmt.Errorf("make spec: %w", err)
		}
	}
	return s, nil
}

func process(s *specs.Spec) error {
	caps := policy.ExecutorCapabilities()
	s.Process = &specs.Process{
		Args: []string{guestExecutor, "sandboxed"},
		Env:  []string{"PATH=/", "HOME=/w", "TMPDIR=/w"},
		Cwd:  "/",
		// No inheritable and no ambient ones: they would pass to RUN steps.
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: maxFiles, Hard: maxFiles}},
	}
	s.Hostname = "kbuild-sandbox"
	return nil
}

// maxFiles is the limit of open files that RUN steps find, as in Docker.
const maxFiles = 1 << 20

func root(l layout) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
		s.Root = &specs.Root{Path: l.rootfs, Readonly: true}
		return nil
	}
}

func storage(c Config, l layout) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
		s.Mounts = mounts(c, l)
		s.Annotations = workspace(l, c.Quota)
		return nil
	}
}

func namespaces(m mode) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
		for _, t := range []specs.LinuxNamespaceType{
			specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
		} {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
		}
		if m == modeRoot {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings, s.Linux.GIDMappings = nobodyMap(), nobodyMap()
		}
		return nil
	}
}

// networkNamespace is the one that the first stage has put runsc into, with the
// link; or a new one, with nothing in it.
func networkNamespace(c Config) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
		ns := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}
		if c.Network.none(c.Request.Role) {
			ns.Path = ""
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
		return nil
	}
}

func filter(s *specs.Spec) (err error) {
	s.Linux.Seccomp, err = seccomp(policy.ExecutorTable())
	return err
}
