package insandbox

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

func executorCapabilities() []string { return policy.ExecutorCapabilities() }

// executorSeccomp is the executor's table in the form of the OCI spec.
func executorSeccomp() *specs.LinuxSeccomp {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for _, r := range policy.ExecutorTable().Rules {
		call := specs.LinuxSyscall{Names: r.Names, Action: specs.ActAllow}
		for _, a := range r.Args {
			arg := specs.LinuxSeccompArg{Index: a.Index, Value: a.Mask, ValueTwo: a.Value, Op: specs.OpMaskedEqual}
			if a.Not {
				arg = specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, Op: specs.OpNotEqual}
			}
			call.Args = append(call.Args, arg)
		}
		s.Syscalls = append(s.Syscalls, call)
	}
	return s
}
