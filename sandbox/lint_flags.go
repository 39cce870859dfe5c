package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// flagRules are the values that runsc's flags may have: every flag that can
// weaken the sandbox has to be there, with one of them. A flag that is not here
// is refused.
func (b bundleText) flagRules() map[string][]string {
	either := []string{"true", "false"}
	return map[string][]string{
		"platform":                {"systrap", "kvm"},
		"oci-seccomp":             {"true"},  // R2
		"rootless":                {"false"}, // R11
		"directfs":                {"false"}, // R12
		"network":                 {"sandbox", "none"},
		"gofer-network-namespace": {"new"},
		"net-raw":                 either,
		"overlay2":                {"none"},
		"file-access":             {"exclusive"},
		"file-access-mounts":      {"exclusive"},
		"host-uds":                {"none"}, // R10
		"host-fifo":               {"none"},
		"character-device-policy": {"emulated-only"},
		"allow-flag-override":     {"false"}, // R1
		"allow-suid":              {strconv.FormatBool(!b.c.NoSUID)},
		"ignore-cgroups":          {"true"},
		"debug":                   {strconv.FormatBool(b.c.DebugDir != "")},
	}
}

// tuning are flags that change how much work is done at once on the link, and
// nothing about who may do what; they may be missing.
func tuning() []string {
	return []string{"gso", "software-gso", "tx-checksum-offload", "rx-checksum-offload", "gvisor-gro", "qdisc", "num-network-channels"}
}

// flagValues checks runsc's command line against the rules.
func (b bundleText) flagValues() string {
	rules := b.flagRules()
	if b.c.DirectFS || b.m == modeUser {
		// A gofer beside a network needs a second id.
		rules["directfs"] = []string{"true", "false"}
	}
	places := map[string]string{"root": b.l.state, "log": b.l.log, "panic-log": b.l.panics}
	if b.c.DebugDir != "" {
		places["debug-log"] = filepath.Join(b.c.DebugDir, string(b.l.role)) + "/"
	}
	seen := map[string]bool{}
	for _, f := range b.flags {
		place, isPlace := places[f.Name]
		values, isRule := rules[f.Name]
		switch {
		case seen[f.Name]:
			return "--" + f.Name + " is there twice"
		case isPlace && (f.Value != place || !filepath.IsAbs(place)), isRule && !slices.Contains(values, f.Value):
			return fmt.Sprintf("--%s=%s", f.Name, f.Value)
		case !isPlace && !isRule && !slices.Contains(tuning(), f.Name):
			return "--" + f.Name + " is not known"
		}
		seen[f.Name] = true
	}
	for name := range rules {
		if !seen[name] {
			return "--" + name + " is missing"
		}
	}
	for name := range places {
		if !seen[name] {
			return "--" + name + " is missing"
		}
	}
	return ""
}
