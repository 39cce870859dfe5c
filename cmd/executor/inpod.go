package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy/filter"
)

// In-pod mode: somebody else, such as containerd with its runsc shim, has put
// this process inside gVisor, with Docker's default capabilities and without
// CAP_SYS_ADMIN. It becomes three processes, one inside the other:
//
//	outer     stays as it is, makes device nodes for the inner ones
//	walled    in a user namespace, with all ids that outer has, and a mount
//	          namespace of its own, where it may mount; makes the program
//	          read-only there; loads the executor's seccomp filter
//	builder   the same process after an exec, so that the filter covers every
//	          thread; parses the arguments and builds
const (
	walledArg  = "in-pod-walled"
	builderArg = "in-pod-builder"
	nodesFd    = 3
)

// inPod is outer.
func inPod(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case walledArg:
			return walled(args[1:])
		case builderArg:
			return builder(args[1:])
		}
	}
	if code, done := parseOnly(args); done {
		return code
	}
	sock, child, err := nodeSockets()
	if err != nil {
		return complain(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{walledArg}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{child}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{Size: idRange("/proc/self/uid_map")}},
		GidMappings:                []syscall.SysProcIDMap{{Size: idRange("/proc/self/gid_map")}},
		GidMappingsEnableSetgroups: true,
		Pdeathsig:                  syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := cmd.Start(); err != nil {
		return complain(fmt.Errorf("make a user namespace to build in: %w", err))
	}
	child.Close()
	go serveNodes(sock)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	return exitCode(cmd.Wait())
}

// idRange is how many ids from 0 on a map of our own namespace has: all of
// gVisor's, or 65536 in a pod with a user namespace of its own. An image may use
// any of them.
func idRange(file string) int {
	var inside, outside, size int
	b, err := os.ReadFile(file)
	if err == nil {
		_, err = fmt.Sscan(string(b), &inside, &outside, &size)
	}
	if err != nil || inside != 0 {
		return 65536 // what every image may count on
	}
	return size
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return 128 + int(s.Signal())
		}
		return exit.ExitCode()
	}
	return complain(err)
}

// walled makes the program read-only and loads the filter, as the launcher would
// have done both in the spec.
func walled(args []string) int {
	runtime.LockOSThread()
	self, err := os.Executable()
	if err == nil {
		err = rootfs.Protect(self)
	}
	if err != nil {
		return complain(&executor.WallError{Wall: "read-only executor", Found: err.Error()})
	}
	// Kept over the exec below; no RUN step gets it.
	if err := filter.Load(policy.ExecutorTable()); err != nil {
		return complain(&executor.WallError{Wall: "seccomp", Found: err.Error()})
	}
	argv := append([]string{os.Args[0], builderArg}, args...)
	return complain(fmt.Errorf("start the builder: %w", unix.Exec(self, argv, os.Environ())))
}

// builder parses the arguments and builds.
func builder(args []string) int {
	unix.CloseOnExec(nodesFd)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return complain(fmt.Errorf("make the executor undumpable: %w", err))
	}
	unix.Umask(0o022)
	return command(args)
}

// podWalls are the walls of a pod. Without gVisor around it nothing is built
// unless the user insists.
func podWalls(force bool) func(request.Posture) error {
	return func(p request.Posture) error {
		if !p.GVisor && !force {
			return &executor.WallError{Wall: "gVisor", Found: "this kernel is not gVisor's (" + p.Kernel +
				"): run in a pod with runtimeClassName: gvisor, or with --force if you are sure"}
		}
		return needSeccomp(p)
	}
}

func needSeccomp(p request.Posture) error {
	if p.Seccomp != 2 {
		return &executor.WallError{Wall: "seccomp", Found: fmt.Sprintf("Seccomp: %d where 2 is wanted", p.Seccomp)}
	}
	return nil
}

func complain(err error) int {
	_ = progress.Error(os.Stderr, err.Error(), "", progress.Options{})
	return 1
}
