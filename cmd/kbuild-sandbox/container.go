package main

import (
	"io/fs"
	"os"
	"strings"
)

// container is what this program runs in.
type container struct {
	kind string // Docker, Podman ...; empty: none that is known
	by   string // what tells it
	// filtered: a seccomp filter is in force that somebody else has loaded.
	filtered bool
}

// findContainer looks for the marks that containers leave. root is the file
// system.
func findContainer(root fs.FS) container {
	var c container
	has := func(name string) bool {
		_, err := fs.Stat(root, name)
		return err == nil
	}
	text := func(name string) string {
		data, _ := fs.ReadFile(root, name) // what cannot be read says nothing
		return string(data)
	}
	switch {
	case has("proc/gvisor"):
		c.kind, c.by = "gVisor", "/proc/gvisor"
	case has("var/run/secrets/kubernetes.io"):
		c.kind, c.by = "Kubernetes", "/var/run/secrets/kubernetes.io"
	case strings.Contains(text("proc/self/cgroup"), "kubepods"):
		c.kind, c.by = "Kubernetes", "/proc/self/cgroup"
	case has("run/.containerenv"):
		c.kind, c.by = "Podman", "/run/.containerenv"
	case has(".dockerenv"):
		c.kind, c.by = "Docker", "/.dockerenv"
	}
	for line := range strings.Lines(text("proc/self/status")) {
		if value, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			c.filtered = strings.TrimSpace(value) == "2"
		}
	}
	return c
}

// ways are how a build works in a container of each kind. What is named is all
// that is needed: no privilege, no capability, no device.
func ways() map[string]string {
	return map[string]string{
		"Docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...\n" +
			"the profiles of Docker forbid to make namespaces and to mount in them; nothing else is needed: no --privileged, no capability, no /dev/net/tun",
		"Podman": "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...\n" +
			"with SELinux --security-opt label=disable instead of the second; nothing else is needed: no --privileged, no capability, no /dev/net/tun",
		"Kubernetes": "run the executor's image as the pod itself, with runtimeClassName: gvisor, see deploy/ and the README;\n" +
			"or give this container securityContext.seccompProfile.type and appArmorProfile.type: Unconfined",
		"gVisor": "inside gVisor the executor builds by itself: use its image with Kaniko's arguments, see the README",
		"": "a seccomp filter of the program that started this one is in force; it has to allow clone and unshare with CLONE_NEWUSER,\n" +
			"mount, umount2, pivot_root, setns, ptrace, process_vm_readv, process_vm_writev and seccomp",
	}
}

// inContainer puts the container, if there is one, before the findings, and
// says how to run in it where something is missing.
func inContainer(list []finding) []finding {
	return withContainer(findContainer(os.DirFS("/")), list)
}

func withContainer(c container, list []finding) []finding {
	f := finding{name: "container", ok: true, optional: true, found: "none", hint: ways()[c.kind]}
	switch {
	case c.kind != "":
		f.found = c.kind + " (" + c.by + ")"
	case c.filtered:
		f.found = "unknown"
	}
	if c.filtered {
		f.found += ", with a seccomp filter"
	}
	for _, g := range list {
		if !g.ok && !g.optional && (c.kind != "" || c.filtered) && isWall(g.name) {
			f.ok = false
		}
	}
	return append([]finding{f}, list...)
}

// isWall tells whether a finding is about something that a container may
// forbid.
func isWall(name string) bool {
	switch name {
	case namespacesName, "new namespace", "network link", "ptrace", "seccomp", "sandbox":
		return true
	}
	return false
}
