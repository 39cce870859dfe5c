package policy

// RunCapabilities are what root has in a RUN step: the default set of Docker,
// containerd and BuildKit (0xa80425fb). It is also the bounding set, since exec
// as root would otherwise regain what was merely dropped (R6). A runtime that
// withholds one of them (runsc without --net-raw: CAP_NET_RAW) makes it smaller.
func RunCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE",      // write to the audit log: sudo, sshd
		"CAP_CHOWN",            // give files away: package managers
		"CAP_DAC_OVERRIDE",     // ignore file modes, as root expects
		"CAP_FOWNER",           // chmod and utimes on files of others
		"CAP_FSETID",           // keep set-id bits when writing
		"CAP_KILL",             // signal processes of others, in its own PID namespace
		"CAP_MKNOD",            // device nodes in the layer; gVisor opens its own few only
		"CAP_NET_BIND_SERVICE", // ports below 1024
		"CAP_NET_RAW",          // ping
		"CAP_SETFCAP",          // file capabilities: setcap in a Dockerfile
		"CAP_SETGID",           // su, sudo, package scripts
		"CAP_SETPCAP",          // drop capabilities of its own
		"CAP_SETUID",           // su, sudo, package scripts
		"CAP_SYS_CHROOT",       // debootstrap and the like
	}
}

// ExecutorCapabilities are what the executor has inside the sandbox: those of a
// RUN step, which it hands on, and what it needs to make one.
func ExecutorCapabilities() []string {
	return append(RunCapabilities(),
		"CAP_SYS_ADMIN", // mount, pivot_root, namespaces, trusted.* attributes, seccomp without no_new_privs
	)
}
