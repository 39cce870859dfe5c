package insandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// Workspace is a directory for the tests: like the executor's workspace it is a
// sentry tmpfs backed by a file on the host's disk.
const Workspace = "/w"

// marker is set in the environment inside.
const marker = "KBUILD_INSANDBOX"

// Main runs the tests of m inside gVisor and exits. Outside it starts this test
// program there first.
func Main(m *testing.M) { Run(m, Config{}) }

// Run is Main with another sandbox than the default.
func Run(m *testing.M, c Config) {
	if os.Getenv(marker) != "" {
		os.Exit(m.Run())
	}
	code, err := c.outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "insandbox:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// outside starts the test program inside and returns its exit code.
func (c Config) outside() (int, error) {
	pkg, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	module, err := moduleRoot(pkg)
	if err != nil {
		return 0, err
	}
	runsc, err := findRunsc(module)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "insandbox-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := c.bundle(dir, module, pkg); err != nil {
		return 0, err
	}
	return run(runsc, dir)
}

// run runs the bundle in dir to its end. An interrupt ends it too.
func run(runsc, dir string) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	id := filepath.Base(dir)
	flags := []string{
		"--root=" + filepath.Join(dir, "state"), "--network=none", "--net-raw", "--ignore-cgroups",
		"--oci-seccomp", "--overlay2=none", "--log=" + filepath.Join(dir, "log"),
		"--panic-log=" + filepath.Join(dir, "panic"),
	}
	cmd := exec.CommandContext(ctx, runsc, append(flags, "run", "--bundle="+dir, id)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// Through pipes: gVisor writes regular files from offset 0.
	cmd.Stdout = struct{ io.Writer }{os.Stdout}
	cmd.Stderr = struct{ io.Writer }{os.Stderr}
	// A mount namespace of its own: runsc leaves a mount in its root directory.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		rootless(cmd.SysProcAttr)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		if exit.ExitCode() == 128 { // it did not start
			show(filepath.Join(dir, "log"))
		}
		show(filepath.Join(dir, "panic")) // gVisor's own end, if it came to that
		return exit.ExitCode(), nil
	}
	return 0, err
}

// rootless gives the command namespaces of its own in which it is root.
func rootless(a *syscall.SysProcAttr) {
	a.Unshareflags = 0
	a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
}

// show copies the beginning of a log to standard error.
func show(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	io.CopyN(os.Stderr, f, 16<<10)
}

func moduleRoot(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod above %s", dir)
		}
	}
}

func findRunsc(module string) (string, error) {
	if p := os.Getenv("KBUILD_RUNSC"); p != "" {
		return p, nil
	}
	p := filepath.Join(module, "bin", "runsc")
	if _, err := os.Stat(p); err == nil {
		return p, nil
	}
	p, err := exec.LookPath("runsc")
	if err != nil {
		return "", fmt.Errorf("these tests run inside gVisor: set KBUILD_RUNSC to runsc, or build bin/runsc: %w", err)
	}
	return p, nil
}
