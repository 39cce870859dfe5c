package sandbox

import (
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// seccomp writes a policy table in the spec's form. Rules that fail with an
// error of their own are left out: gVisor's reader of the spec knows EPERM
// alone, which is the default (rule R4).
//
// What is always allowed is one entry, and the first: gVisor makes a search tree
// of each entry, asks one after the other, and does so for every system call there
// is whenever a process is made.
func seccomp(t policy.Table) (*specs.LinuxSeccomp, error) {
	always := specs.LinuxSyscall{Action: specs.ActAllow}
	out := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for _, r := range t.Rules {
		if r.Errno != 0 || r.Nothing {
			continue
		}
		if len(r.Args) == 0 {
			always.Names = append(always.Names, r.Names...)
			continue
		}
		args, err := seccompArgs(r.Args)
		if err != nil {
			return nil, fmt.Errorf("seccomp rule for %v: %w", r.Names, err)
		}
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: r.Names, Action: specs.ActAllow, Args: args})
	}
	slices.Sort(always.Names)
	if len(always.Names) > 0 {
		out.Syscalls = slices.Insert(out.Syscalls, 0, always)
	}
	return out, nil
}

// seccompArgs refuses what gVisor would read otherwise than meant: an index of
// 6 crashes the sentry (rule R1), and two conditions on one argument are taken
// as alternatives instead of both.
func seccompArgs(args []policy.Arg) ([]specs.LinuxSeccompArg, error) {
	var out []specs.LinuxSeccompArg
	var seen [6]bool
	for _, a := range args {
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("argument %d does not exist", a.Index)
		}
		if seen[a.Index] {
			return nil, fmt.Errorf("two conditions on argument %d", a.Index)
		}
		seen[a.Index] = true
		arg := specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, Op: specs.OpEqualTo}
		switch full := a.Mask == math.MaxUint64; {
		case a.Not && !full:
			return nil, fmt.Errorf("argument %d: a masked inequality cannot be written in a spec", a.Index)
		case a.Not:
			arg.Op = specs.OpNotEqual
		case !full:
			arg.Op, arg.Value, arg.ValueTwo = specs.OpMaskedEqual, a.Mask, a.Value
		}
		out = append(out, arg)
	}
	return out, nil
}
