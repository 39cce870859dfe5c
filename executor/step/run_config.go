package step

import (
	"fmt"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	defaultHostname = "buildkitsandbox"
	defaultShm      = 64 << 20
	networkNone     = "none"
	defaultPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// childConfig is what the RUN child is told, on a pipe. Not as JSON: that changes
// bytes which are no UTF-8, and a path would name another file.
type childConfig struct {
	Root     string // the merged directory, as the executor sees it
	Args     []string
	Env      []string
	Cwd      string
	Identity identity
	Hostname string
	ShmSize  int64 // bytes
	// NoNetwork: the network namespace is new and empty.
	NoNetwork bool
	// Mounts are made in order, after the kernel's own.
	Mounts []childMount
	// Staging is an empty directory, as the executor sees it, that the child
	// puts its tmpfs with secrets on; empty if no mount is a secret.
	Staging string
	// Files go to /dev/pipes.
	Files []plan.File
}

// childMount is a mount inside the stage: Source bound to Target, or a Secret,
// or, where there is neither, a tmpfs.
type childMount struct {
	Source   string // absolute, as the executor sees it
	Target   string // absolute, as the command sees it
	Dir      bool   // Source is a directory
	ReadOnly bool
	Size     int64 // of a tmpfs, in bytes; 0: no limit
	Secret   *secretFile
}

func (m childMount) isDir() bool { return m.Dir || m.Source == "" && m.Secret == nil }

// newConfig is the config of op but for its root and its mounts.
func newConfig(op *plan.Run, env request.Run, id identity) childConfig {
	c := childConfig{
		Args: op.Args, Cwd: op.Cwd, Identity: id, Files: op.Files,
		Env:       environment(op.Env, id.Home),
		Hostname:  env.Hostname,
		ShmSize:   env.ShmSize,
		NoNetwork: op.Network == networkNone,
	}
	if c.Hostname == "" {
		c.Hostname = defaultHostname
	}
	if c.ShmSize == 0 {
		c.ShmSize = defaultShm
	}
	if c.Cwd == "" {
		c.Cwd = "/"
	}
	return c
}

// environment is env, each name once with its last value, with PATH and HOME.
func environment(env []string, home string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	if _, ok := at["PATH"]; !ok {
		out = append(out, "PATH="+defaultPath)
	}
	if _, ok := at["HOME"]; !ok {
		out = append(out, "HOME="+home)
	}
	return out
}

// hosts is the text of /etc/hosts, in BuildKit's form.
func hosts(hostname string, more []request.KeyValue) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n", hostname)
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range more {
		fmt.Fprintf(&b, "%s\t%s\n", h.Value, h.Key)
	}
	return b.String()
}

func resolvConf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
