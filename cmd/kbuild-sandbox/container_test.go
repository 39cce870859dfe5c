package main

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestFindContainer(t *testing.T) {
	const filtered = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		kind  string
		found bool // a filter
	}{
		{"a machine", map[string]string{"proc/self/status": "Seccomp:\t0\n", "proc/self/cgroup": "0::/user.slice\n"}, "", false},
		{"Docker", map[string]string{".dockerenv": "", "proc/self/status": filtered}, "Docker", true},
		{"Podman", map[string]string{"run/.containerenv": "", "proc/self/status": filtered}, "Podman", true},
		{"a pod", map[string]string{"proc/self/cgroup": "0::/kubepods.slice/x\n"}, "Kubernetes", false},
		{"a pod with an account", map[string]string{"var/run/secrets/kubernetes.io/serviceaccount/token": "x", ".dockerenv": ""}, "Kubernetes", false},
		{"gVisor", map[string]string{"proc/gvisor/x": "", ".dockerenv": ""}, "gVisor", false},
		{"another filter", map[string]string{"proc/self/status": filtered}, "", true},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		c := findContainer(root)
		if c.kind != tt.kind || c.filtered != tt.found || (c.kind != "") != (c.by != "") {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
}

// How to run in a container is said where something is missing that it may
// forbid, and only there.
func TestWithContainer(t *testing.T) {
	good := []finding{{name: "sandbox", ok: true}}
	bad := []finding{{name: "ptrace"}}
	other := []finding{{name: "executor"}, {name: "limits", optional: true}}
	for _, tt := range []struct {
		c    container
		list []finding
		ok   bool
		hint string
	}{
		{container{}, good, true, ""},
		{container{}, bad, true, ""},
		{container{kind: "Docker", by: "x"}, good, true, ""},
		{container{kind: "Docker", by: "x"}, other, true, ""},
		{container{kind: "Docker", by: "x"}, bad, false, "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"},
		{container{kind: "Podman", by: "x", filtered: true}, bad, false, "podman run --security-opt seccomp=unconfined"},
		{container{kind: "Kubernetes", by: "x"}, bad, false, "runtimeClassName: gvisor"},
		{container{kind: "gVisor", by: "x"}, bad, false, "the executor builds by itself"},
		{container{filtered: true}, bad, false, "CLONE_NEWUSER"},
	} {
		list := withContainer(tt.c, tt.list)
		f := list[0]
		if len(list) != len(tt.list)+1 || f.ok != tt.ok || !f.optional || !strings.Contains(f.hint, tt.hint) {
			t.Errorf("%+v: %+v", tt.c, f)
		}
	}
}
