package runsc

import "strconv"

// Settings are the few things about a start that differ.
type Settings struct {
	Root string // directory for runsc's own state, for this sandbox alone
	Log  string // file for runsc's error reports
	// PanicLog is the file for a crash of the sentry.
	PanicLog string
	// DebugDir, if not empty, turns on gVisor's own very long logs there.
	DebugDir string
	// DirectFS: the sentry opens the read-only host files itself. Reading many
	// small files of the context takes about two thirds of the time, for 16 more
	// system calls in the sentry's own filter (rule R12).
	DirectFS bool
	// NoNetwork: the sandbox has its loopback interface and no other.
	NoNetwork bool
	// NoSUID: set-user-id programs in RUN steps do not elevate (rule R23).
	NoSUID bool
}

// Flag is one flag of runsc, with the reason for its value.
type Flag struct {
	Name  string
	Value string
	Why   string
}

// Flags is a command line of runsc as data. No string of a tenant is in it.
type Flags []Flag

// Table returns every flag that runsc is started with. What can weaken the
// sandbox is named even where the value is gVisor's default, so that a change
// of a default changes nothing here.
func Table(s Settings) Flags {
	t := Flags{
		{"root", s.Root, "state of this sandbox alone; removed with the work directory"},
		{"log", s.Log, "errors, shown when the sandbox does not start"},
		{"panic-log", s.PanicLog, "a crash of the sentry, shown when it happens"},
		{"platform", "systrap", "needs no device and works on virtual machines"},
		{"oci-seccomp", "true", "R2: without it the spec's filter is silently ignored"},
		{"rootless", "false", "R11: the launcher makes the user namespace; gVisor's own way leaves the sentry more capabilities"},
		{"directfs", strconv.FormatBool(s.DirectFS), "false: the sentry opens no host file; a separate gofer does"},
		{"network", network(s), "gVisor's own stack: sandbox: on the one interface that the gateway is behind"},
		{"gso", "false", "the link's other end takes single packets, which may be as large as IP has them"},
		{"software-gso", "false", "the same"},
		{"tx-checksum-offload", "true", "the link is memory: nothing is damaged on it"},
		{"rx-checksum-offload", "true", "the same"},
		{"gofer-network-namespace", "new", "an empty one for the gofer; the default pins one with a mount that outlives a kill"},
		{"net-raw", "true", "RUN steps have CAP_NET_RAW, as everywhere; what a raw socket sends is judged by the gateway"},
		{"overlay2", "none", "the root file system is read-only and needs no overlay"},
		{"file-access", "exclusive", "nobody else changes the root file system"},
		{"file-access-mounts", "exclusive", "the context is taken as it is when the build starts"},
		{"host-uds", "none", "R10: no socket of the host"},
		{"host-fifo", "none", "no named pipe of the host"},
		{"character-device-policy", "emulated-only", "a device node in the context opens nothing of the host"},
		{"allow-flag-override", "false", "R1: no annotation changes a flag"},
		{"allow-suid", strconv.FormatBool(!s.NoSUID), "R23: as BuildKit, sudo and su work in RUN steps of another user; root in there is root of the sandbox only"},
		{"ignore-cgroups", "true", "limits are the caller's cgroup"},
		{"debug", strconv.FormatBool(s.DebugDir != ""), "gVisor's own logs, with file names and arguments"},
	}
	if s.DebugDir != "" {
		t = append(t, Flag{"debug-log", s.DebugDir + "/", "one file a command"})
	}
	return t
}

func network(s Settings) string {
	if s.NoNetwork {
		return "none"
	}
	return "sandbox"
}

// Args returns the flags as runsc takes them.
func (t Flags) Args() []string {
	args := make([]string, 0, len(t))
	for _, f := range t {
		args = append(args, "--"+f.Name+"="+f.Value)
	}
	return args
}

// Get returns the value of a flag, or "".
func (t Flags) Get(name string) string {
	for _, f := range t {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}
