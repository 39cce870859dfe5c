package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// setCmd is CMD.
func (m *maker) setCmd(d *draft, i *instructions.CmdCommand, lint *linter.Linter) error {
	m.checks.once(i, &d.cmd, lint)
	c := &d.Image.Config
	args := i.CmdLine
	if i.PrependShell {
		m.checks.jsonArgs(c, i, lint)
		args = c.withShell(args)
	}
	c.Cmd = args
	c.ArgsEscaped = true
	return m.record(d, fmt.Sprintf("CMD %q", args), false)
}

// setEntrypoint is ENTRYPOINT. A CMD that the stage did not set itself was made
// for another entry point and goes.
func (m *maker) setEntrypoint(d *draft, i *instructions.EntrypointCommand, lint *linter.Linter) error {
	m.checks.once(i, &d.entrypoint, lint)
	c := &d.Image.Config
	args := i.CmdLine
	if i.PrependShell {
		m.checks.jsonArgs(c, i, lint)
		args = c.withShell(args)
	}
	c.Entrypoint = args
	if d.cmd == nil {
		c.Cmd = nil
	}
	return m.record(d, fmt.Sprintf("ENTRYPOINT %q", args), false)
}

// setHealthcheck is HEALTHCHECK; nothing of an earlier one stays.
func (m *maker) setHealthcheck(d *draft, i *instructions.HealthCheckCommand, lint *linter.Linter) error {
	m.checks.once(i, &d.healthcheck, lint)
	h := Healthcheck{
		Test:          i.Health.Test,
		Interval:      i.Health.Interval,
		Timeout:       i.Health.Timeout,
		StartPeriod:   i.Health.StartPeriod,
		StartInterval: i.Health.StartInterval,
		Retries:       i.Health.Retries,
	}
	d.Image.Config.Healthcheck = &h
	return m.record(d, fmt.Sprintf("HEALTHCHECK %+v", h), false)
}

// setUser is USER. Whether there is such a user is seen when a step needs it.
func (m *maker) setUser(d *draft, i *instructions.UserCommand) error {
	d.Image.Config.User = i.User
	return m.record(d, "USER "+i.User, false)
}

// setVolumes is VOLUME: a remark in the config, nothing else.
func (m *maker) setVolumes(d *draft, i *instructions.VolumeCommand) error {
	c := &d.Image.Config
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, v := range i.Volumes {
		if v == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		c.Volumes[v] = struct{}{}
	}
	return m.record(d, fmt.Sprintf("VOLUME %v", i.Volumes), false)
}

// setShell is SHELL.
func (m *maker) setShell(d *draft, i *instructions.ShellCommand) error {
	d.Image.Config.Shell = i.Shell
	return m.record(d, fmt.Sprintf("SHELL %v", i.Shell), false)
}

// maintainer is MAINTAINER.
func (m *maker) maintainer(d *draft, i *instructions.MaintainerCommand) error {
	d.Image.Author = i.Maintainer
	return m.record(d, "MAINTAINER "+i.Maintainer, false)
}

// setStopSignal is STOPSIGNAL. The config has it as written.
func (m *maker) setStopSignal(d *draft, i *instructions.StopSignalCommand) error {
	if !isSignal(i.Signal) {
		return fmt.Errorf("invalid signal: %s", i.Signal)
	}
	d.Image.Config.StopSignal = i.Signal
	return m.record(d, "STOPSIGNAL "+i.Signal, false)
}

// isSignal says whether a text is a signal's number but 0, or a signal's name
// as Linux has them, with or without SIG.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n != 0
	}
	s = strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, name := range signals {
		if s == name {
			return true
		}
	}
	// Real-time signals count up from RTMIN to RTMIN+15 and down from RTMAX to
	// RTMAX-14.
	return isRealtime(s, "RTMIN", "+", 15) || isRealtime(s, "RTMAX", "-", 14)
}

func isRealtime(s, base, sign string, most int) bool {
	off, ok := strings.CutPrefix(s, base)
	if !ok || off == "" {
		return ok
	}
	digits, ok := strings.CutPrefix(off, sign)
	n, err := strconv.Atoi(digits)
	return ok && err == nil && n >= 1 && n <= most && digits == strconv.Itoa(n)
}

var signals = [...]string{
	"ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
	"PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
	"USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
}
