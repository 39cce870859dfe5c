package policy

// Flags of clone that make a namespace (linux/sched.h). CLONE_NEWTIME is not
// among them: clone cannot express it.
const (
	cloneNewNS     = 0x00020000
	cloneNewCgroup = 0x02000000
	cloneNewUTS    = 0x04000000
	cloneNewIPC    = 0x08000000
	cloneNewUser   = 0x10000000
	cloneNewPID    = 0x20000000
	cloneNewNet    = 0x40000000

	cloneNew = cloneNewNS | cloneNewCgroup | cloneNewUTS | cloneNewIPC | cloneNewUser | cloneNewPID | cloneNewNet
)

// RunTable is filter 2, loaded by the RUN child (rule R5). In gVisor root can
// make a user namespace without any capability and has all of them in it, with
// mount and pivot_root: only this table stops that.
//
// What is refused on purpose fails with EPERM. What is not named at all fails
// with ENOSYS, as on a kernel that lacks it: programs then fall back, where
// EPERM would end them (fchmodat2 in a glibc newer than this table).
func RunTable() Table {
	rules := append(ordinary(), cloneRules()...)
	rules = append(rules, personalityRules()...)
	rules = append(rules, killRules()...)
	rules = append(rules, socketDenials()...)
	rules = append(rules,
		deny("namespaces", "setns", "unshare"),
		deny("mounts",
			"fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
			"pivot_root", "umount2"),
		deny("other processes' memory and files",
			"kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"),
		deny("large parts of a kernel that builds do not need",
			"bpf", "fanotify_init", "io_uring_enter", "io_uring_register", "io_uring_setup",
			"lookup_dcookie", "perf_event_open", "userfaultfd"),
		deny("keys, which are not divided by namespace", "add_key", "keyctl", "request_key"),
		deny("files by handle, past the mount tree", "name_to_handle_at", "open_by_handle_at"),
		deny("memory placement", "get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy"),
		deny("the machine",
			"acct", "clock_settime", "delete_module", "finit_module", "init_module", "ioperm", "iopl",
			"kexec_file_load", "kexec_load", "nfsservctl", "quotactl", "reboot", "setdomainname",
			"sethostname", "settimeofday", "swapoff", "swapon", "sysfs", "syslog", "uselib", "ustat",
			"vhangup"),
	)
	return Table{Rules: rules, Default: ENOSYS}
}

func deny(purpose string, names ...string) Rule {
	return Rule{For: purpose, Names: names, Errno: EPERM}
}

// cloneRules allow processes and threads but no namespaces. The flags of clone3
// lie in memory, where no filter sees them: ENOSYS makes every C library and
// runtime fall back to clone.
func cloneRules() []Rule {
	rules := []Rule{
		{
			For: "new processes in the same namespaces", Names: []string{"clone"},
			Args: []Arg{{Index: 0, Mask: cloneNew, Value: 0}},
		},
		{For: "clone3: fall back to clone", Names: []string{"clone3"}, Errno: ENOSYS},
	}
	for _, flag := range []uint64{
		cloneNewNS, cloneNewCgroup, cloneNewUTS, cloneNewIPC, cloneNewUser, cloneNewPID, cloneNewNet,
	} {
		rules = append(rules, Rule{
			For: "new namespaces", Names: []string{"clone"}, Errno: EPERM,
			Args: []Arg{{Index: 0, Mask: flag, Value: flag}},
		})
	}
	return rules
}

// socketDenials say EPERM, which programs know, to kinds of sockets that
// newSockets leaves out.
func socketDenials() []Rule {
	refuse := func(purpose string, args ...Arg) Rule {
		return Rule{For: purpose, Names: []string{"socket"}, Errno: EPERM, Args: args}
	}
	family := func(f uint64) Arg { return Arg{Index: 0, Mask: AllBits, Value: f} }
	raw := func(but uint64) []Arg {
		return []Arg{{Index: 1, Mask: typeMask, Value: typeRaw}, {Index: 2, Mask: AllBits, Value: but, Not: true}}
	}
	return []Rule{
		refuse("AF_VSOCK: a way past the network to a hypervisor", family(familyVSOCK)),
		refuse("AF_PACKET: all that other steps send and receive", family(familyPacket)),
		refuse("raw sockets: what other steps receive", append(raw(protocolICMP), family(familyINET))...),
		refuse("raw sockets: what other steps receive", append(raw(protocolICMPv6), family(familyINET6))...),
	}
}

// killRules make the command, process 1 of its namespace, as unkillable from
// within as Linux has it: SIGKILL to it succeeds and does nothing. gVisor would
// deliver it.
func killRules() []Rule {
	const init, sigkill = 1, 9
	rules := []Rule{}
	for _, call := range []struct {
		name   string
		signal uint // the argument with the signal
	}{{"kill", 1}, {"tkill", 1}, {"tgkill", 2}} {
		names := []string{call.name}
		rules = append(rules,
			Rule{
				For: "signals to other processes", Names: names,
				Args: []Arg{{Index: 0, Mask: AllBits, Value: init, Not: true}},
			},
			Rule{
				For: "signals to process 1", Names: names,
				Args: []Arg{{Index: 0, Mask: AllBits, Value: init}, {Index: call.signal, Mask: AllBits, Value: sigkill, Not: true}},
			},
			Rule{
				For: "SIGKILL to process 1, which Linux ignores", Names: names, Nothing: true,
				Args: []Arg{{Index: 0, Mask: AllBits, Value: init}, {Index: call.signal, Mask: AllBits, Value: sigkill}},
			})
	}
	return rules
}

// personalityRules allow to ask, the default, and what setarch uses: Linux on
// 32 bits (0x8), uname 2.6 (0x20000), both.
func personalityRules() []Rule {
	var rules []Rule
	for _, v := range []uint64{0, 0x8, 0x20000, 0x20008, 0xffffffff} {
		rules = append(rules, Rule{
			For: "personality", Names: []string{"personality"},
			Args: []Arg{{Index: 0, Mask: AllBits, Value: v}},
		})
	}
	return rules
}
