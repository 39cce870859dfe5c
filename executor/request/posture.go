package request

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Posture is what an executor measured of its own walls before it did anything
// else. It is a claim: the launcher compares it with what it promised, and with
// what it measures from outside.
type Posture struct {
	GVisor   bool   `json:"gvisor"`
	Kernel   string `json:"kernel"`   // its release, as uname says
	Executor string `json:"executor"` // version
	// Digest is that of the executor's own program, sha256:<hex>.
	Digest  string `json:"digest,omitempty"`
	Seccomp int    `json:"seccomp"` // as in /proc/self/status: 2 is a filter
	// Denied are the system calls that were tried, of those that the filter has to
	// forbid, and that failed for it.
	Denied     []string `json:"denied,omitempty"`
	NoNewPrivs bool     `json:"noNewPrivs,omitempty"`
	InUserns   bool     `json:"inUserns,omitempty"` // in a user namespace other than the first
	UID        int      `json:"uid"`
	GID        int      `json:"gid"`
	// PID is the executor's own, Processes how many there are beside it.
	PID          int          `json:"pid"`
	Processes    int          `json:"processes,omitempty"`
	Capabilities Capabilities `json:"capabilities"`
	Mounts       []Mounted    `json:"mounts,omitempty"` // in the order of their making
	Network      Connection   `json:"network"`
	// Files are the kinds of the open file descriptors, from 0 on.
	Files []string `json:"files,omitempty"`
}

// Capabilities are the sets of a thread, in hexadecimal as in /proc.
type Capabilities struct {
	Inheritable string `json:"inheritable"`
	Permitted   string `json:"permitted"`
	Effective   string `json:"effective"`
	Bounding    string `json:"bounding"`
	Ambient     string `json:"ambient"`
}

// Mounted is one mount.
type Mounted struct {
	Target   GuestPath `json:"target"`
	Type     string    `json:"type"` // "9p": files of the host, through gVisor's gofer
	Writable bool      `json:"writable,omitempty"`
}

// Connection is what the network looks like: interfaces but lo, and the routes to
// everywhere.
type Connection struct {
	Interfaces []Interface `json:"interfaces,omitempty"`
	Gateways   []string    `json:"gateways,omitempty"` // addresses
}

// Interface is one network interface.
type Interface struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses,omitempty"` // with the length of the prefix
}

// RolePosture is what was measured of the walls of one role, from both sides.
type RolePosture struct {
	Role    Role     `json:"role,omitempty"`
	Inside  Posture  `json:"inside"`
	Outside *Outside `json:"outside,omitempty"` // none in in-pod mode: nobody looks from there
}

// Outside is what the launcher measured on the host.
type Outside struct {
	GVisor string `json:"gvisor"` // version of the program that runs as the sentry
	// Flags are those of the sentry, name=value, but for paths.
	Flags     []string      `json:"flags"`
	Processes []HostProcess `json:"processes"` // sentry, gofer
	// Limits is set if the sandbox is in a control group of its own.
	Limits bool `json:"limits,omitempty"`
}

// HostProcess is one process of gVisor.
type HostProcess struct {
	Role string `json:"role"` // sentry or gofer
	// UID and GID are real, effective, saved and of the file system: all one.
	UID          int          `json:"uid"`
	GID          int          `json:"gid"`
	Seccomp      int          `json:"seccomp"` // of every thread, as NoNewPrivs and Capabilities
	NoNewPrivs   bool         `json:"noNewPrivs"`
	Capabilities Capabilities `json:"capabilities"`
	// Namespaces are those that it does not share with the launcher.
	Namespaces []string  `json:"namespaces"`
	Root       []string  `json:"root"` // names in its root directory
	Mounts     []Mounted `json:"mounts"`
	// Files are the kinds of its open files, each once.
	Files []string `json:"files"`
}

// PostureDigest is sha256:<hex> of what was measured, as canonical JSON: no
// white space, names in order, no HTML escapes. No process id and no random name
// is in it, so it is the same for every build with the same programs by the same
// user on the same machine.
func PostureDigest(list []RolePosture) (string, error) {
	b, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("posture digest: %w", err)
	}
	var plain any // encoding/json sorts the names of a map
	if err := json.Unmarshal(b, &plain); err != nil {
		return "", fmt.Errorf("posture digest: %w", err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return "", fmt.Errorf("posture digest: %w", err)
	}
	sum := sha256.Sum256(bytes.TrimRight(out.Bytes(), "\n"))
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
