package policy

// ExecutorTable is filter 1, for the seccomp section of the OCI spec: what any
// program may do, and what the executor needs to make a RUN step. What it lacks
// nobody inside can do, whatever else fails: load modules, trace processes,
// reach bpf, keys, io_uring, performance counters or the clock.
//
// clone3 is in it, since the OCI form could answer it with EPERM only, which
// glibc takes for an answer; filter 2 says ENOSYS to it (R4).
func ExecutorTable() Table {
	return Table{Rules: append(ordinary(),
		allow("signals to any process", []string{"kill", "tgkill", "tkill"}),
		allow("new processes and namespaces", []string{"clone", "clone3", "unshare"}),
		allow("a stage's filesystem", []string{"mount", "pivot_root", "umount2"}),
		allow("a RUN step's host name", []string{"sethostname"}),
		allow("personality", []string{"personality"}),
	)}
}

// ExecutorDenies are system calls that filter 1 has to stop and that the
// executor tries before anything else: a filter that is loaded is not yet one
// that stops something. In alphabetical order.
func ExecutorDenies() []string {
	return []string{"keyctl", "perf_event_open", "process_vm_readv", "ptrace", "setns"}
}
