package posture

import (
	"slices"

	"golang.org/x/sys/unix"
)

// nobody is no process's number.
const nobody = 1<<31 - 1

// denied tries system calls that the executor's filter does not allow, in forms
// that fail without one too, but with another error than the filter's EPERM: no
// such process, no such file, not known. It returns the names of those that the
// filter has stopped, so that a filter that is loaded and lets everything
// through is not taken for one.
func denied() (names []string) {
	for _, try := range []struct {
		name string
		nr   uintptr
		args [3]uintptr
	}{
		{"keyctl", unix.SYS_KEYCTL, [3]uintptr{nobody}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [3]uintptr{}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [3]uintptr{nobody}},
		{"ptrace", unix.SYS_PTRACE, [3]uintptr{unix.PTRACE_PEEKTEXT, nobody}},
		{"setns", unix.SYS_SETNS, [3]uintptr{^uintptr(0)}},
	} {
		_, _, errno := unix.RawSyscall6(try.nr, try.args[0], try.args[1], try.args[2], 0, 0, 0)
		if errno == unix.EPERM {
			names = append(names, try.name)
		}
	}
	slices.Sort(names)
	return names
}
