package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// bounds are the limits that are kept from outside.
type bounds struct {
	sandbox.Limits
	work int64 // bytes of the workspace; 0: what the disk has
}

func newBounds(m *flags.Machine) (bounds, error) {
	if err := m.Check(); err != nil {
		return bounds{}, err
	}
	b := bounds{work: m.WorkSize}
	b.Parent = m.CgroupParent
	b.Memory, b.MemorySwap = m.Memory, m.MemorySwap
	b.CPUQuota, b.CPUPeriod, b.CPUShares = m.CPUQuota, m.CPUPeriod, m.CPUShares
	return b, nil
}

// scopeMark in the environment says that systemd has already been asked.
const scopeMark = "KBUILD_SANDBOX_SCOPE"

// delegated makes sure that the limits can be had: if this process may make no
// control group for them, and systemd is there, it starts itself anew in a scope
// of its own, in which it may. It returns if nothing is to be done, or nothing
// can.
//
// systemd-run and not D-Bus: this process goes on as the same one, with its
// files, its environment and its parent, and speaks to nobody.
func (a *app) delegated(ctx context.Context, l bounds, r request.Limits) error {
	err := sandbox.TryLimits(l.Limits, r)
	if _, asked := a.env(scopeMark); err == nil || asked || l.Parent != "" {
		return err
	}
	run, scope := scopeCommand()
	if run == "" {
		return err
	}
	// What systemd cannot do it says at length, and with a status of its own.
	trial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, failed := exec.CommandContext(trial, run, append(scope, "true")...).CombinedOutput()
	if failed != nil {
		return withReason(err, string(out))
	}
	self, failed := os.Executable()
	if failed != nil {
		return err
	}
	args := append(append([]string{run}, scope...), self)
	failed = syscall.Exec(run, append(args, os.Args[1:]...), append(os.Environ(), scopeMark+"=1"))
	return withReason(err, failed.Error())
}

// scopeCommand is systemd-run with its arguments, but for the program that is to
// run in the scope; "" if it is not there.
func scopeCommand() (run string, args []string) {
	run, err := exec.LookPath("systemd-run")
	if err != nil || !filepath.IsAbs(run) {
		return "", nil
	}
	args = []string{"--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"}
	if os.Geteuid() != 0 {
		args = append([]string{"--user"}, args...)
	}
	return run, args
}

// withReason adds why systemd was no help.
func withReason(err error, text string) error {
	var wall *sandbox.WallError
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if errors.As(err, &wall) && line != "" {
		wall.Log = "systemd-run: " + line
	}
	return err
}
