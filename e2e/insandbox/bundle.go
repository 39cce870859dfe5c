package insandbox

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Config says how the sandbox of the tests differs from the default.
type Config struct {
	// Capabilities of the test process, CAP_...; nil: the executor's.
	Capabilities []string
	// Seccomp of the OCI spec; nil: the executor's.
	Seccomp *specs.LinuxSeccomp
	// NoSeccomp leaves the filter out, as a pod's runtime does by default.
	NoSeccomp bool
	// Programs are static programs of the host, found in PATH, that are wanted
	// in /bin.
	Programs []string
}

// bundle writes config.json and the root filesystem into dir.
func (c Config) bundle(dir, module, pkg string) error {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"proc", "dev", "sys", "etc", "tmp", "w", "src", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	space := filepath.Join(dir, "space")
	if err := os.Mkdir(space, 0o755); err != nil {
		return err
	}
	if err := program(filepath.Join(root, "test"), pkg); err != nil {
		return err
	}
	for _, name := range c.Programs {
		file, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("the tests need a static %s: %w", name, err)
		}
		if err := copyFile(file, filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	rel, err := filepath.Rel(module, pkg)
	if err != nil {
		return err
	}
	spec := c.spec(root, module, space, filepath.Join("/src", rel))
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

func (c Config) spec(root, module, space, cwd string) *specs.Spec {
	caps := c.Capabilities
	if caps == nil {
		caps = executorCapabilities()
	}
	seccomp := c.Seccomp
	if seccomp == nil && !c.NoSeccomp {
		seccomp = executorSeccomp()
	}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: root, Readonly: true},
		Process: &specs.Process{
			Args: append([]string{"/test"}, testFlags(os.Args[1:])...),
			Env:  []string{marker + "=1", "TMPDIR=/tmp", "HOME=/", "PATH=/usr/bin:/bin"},
			Cwd:  cwd,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
		},
		Hostname: "insandbox",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/src", Type: "bind", Source: module, Options: []string{"ro", "rbind"}},
			{Destination: Workspace, Type: "bind", Source: space, Options: []string{"rw", "rbind"}},
		},
		Annotations: map[string]string{
			"dev.gvisor.spec.mount.w.source":  space,
			"dev.gvisor.spec.mount.w.type":    "tmpfs",
			"dev.gvisor.spec.mount.w.share":   "container",
			"dev.gvisor.spec.mount.w.options": "rw",
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			Seccomp: seccomp,
		},
	}
}

// testFlags leaves out, or replaces, the flags that name files outside.
func testFlags(args []string) []string {
	var kept []string
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch name {
		case "test.fuzzcachedir": // the go command's lies outside; a fuzz run must have one
			kept = append(kept, "-test.fuzzcachedir=/tmp/fuzz")
			continue
		case "test.testlogfile", "test.coverprofile", "test.gocoverdir", "test.cpuprofile",
			"test.memprofile", "test.blockprofile", "test.mutexprofile", "test.trace",
			"test.outputdir", "test.artifacts":
			continue
		}
		kept = append(kept, a)
	}
	return kept
}

// program puts a static form of the running test program at dst. Where the
// running one is dynamic, it is linked again: there is no C library inside.
func program(dst, pkg string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dynamic, err := isDynamic(self)
	if err != nil {
		return err
	}
	if !dynamic {
		return copyFile(self, dst)
	}
	cmd := exec.Command("go", "test", "-c", "-tags", "netgo,osusergo",
		"-ldflags", `-extldflags "-static"`, "-o", dst, ".")
	cmd.Dir = pkg
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("link the test program statically: %w\n%s", err, out)
	}
	return nil
}

func isDynamic(name string) (bool, error) {
	f, err := elf.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
