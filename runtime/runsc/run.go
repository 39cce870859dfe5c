package runsc

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// GuestFD is the number under which the executor finds the passed descriptor.
const GuestFD = 3

// firstExtraFD is the number that os/exec gives to the first extra file.
const firstExtraFD = 3

// Start says what `runsc run` runs and how.
type Start struct {
	Flags  Flags
	Bundle string   // directory with config.json
	ID     string   // name of the container, unique below the flag root
	Pass   *os.File // becomes GuestFD inside
	Stdout *os.File // a pipe: gVisor writes a regular file from offset 0
	Stderr *os.File // a pipe
	// Userns puts runsc into a new user namespace, as its uid 0, which is the
	// caller's own user outside. It has a mount namespace of its own in both
	// cases.
	Userns bool
}

// Command returns the command that runs a sandbox to its end. The caller must
// start it on a thread that lives as long as the sandbox shall: everything is
// killed when that thread ends (PR_SET_PDEATHSIG), also by kill -9 of the
// whole launcher. runsc is started attached and does the same to its children.
func (r *Runsc) Command(s Start) *exec.Cmd {
	args := append(s.Flags.Args(), "run", "--bundle="+s.Bundle,
		"--pass-fd="+strconv.Itoa(firstExtraFD)+":"+strconv.Itoa(GuestFD), s.ID)
	cmd := exec.Command(r.Path, args...)
	cmd.Dir = "/"
	// An empty environment: runsc reads GVISOR_* and XDG_RUNTIME_DIR.
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	cmd.ExtraFiles = []*os.File{s.Pass}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Its own session: Ctrl-C at the terminal reaches the launcher only,
		// and there is no terminal to push characters into.
		Setsid:    true,
		Pdeathsig: syscall.SIGKILL,
		// The standard library makes the new mount namespace private, so a
		// mount that runsc makes ends with it.
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
	}
	if s.Userns {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}
