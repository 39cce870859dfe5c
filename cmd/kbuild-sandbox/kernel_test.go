package main

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestKernelFindings(t *testing.T) {
	const actions = "kill_process kill_thread trap errno user_notif trace log allow\n"
	for _, tt := range []struct {
		name string
		set  map[string]string
		root bool
		// bad are the findings that must not be ok, * for those that only warn
		bad string
	}{
		{"an ordinary machine", map[string]string{"user/max_user_namespaces": "96365\n", "kernel/yama/ptrace_scope": "1\n"}, false, ""},
		{"nothing restricts", nil, false, ""},
		{"no user namespaces", map[string]string{"user/max_user_namespaces": "0\n"}, true, "user namespaces"},
		{"Debian's switch", map[string]string{"kernel/unprivileged_userns_clone": "0\n"}, false, "user namespaces"},
		{"Debian's switch for root", map[string]string{"kernel/unprivileged_userns_clone": "0\n"}, true, ""},
		{"Ubuntu's restriction", map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1\n"}, false, "user namespaces*"},
		{"Ubuntu's restriction for root", map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1\n"}, true, ""},
		{"hardened ptrace", map[string]string{"kernel/yama/ptrace_scope": "2\n"}, false, "ptrace scope*"},
		{"an old kernel's seccomp", map[string]string{"kernel/seccomp/actions_avail": "trap errno allow"}, false, "seccomp"},
		{"no seccomp", map[string]string{"kernel/seccomp/actions_avail": ""}, false, "seccomp"},
		{"nonsense", map[string]string{"user/max_user_namespaces": "many", "kernel/yama/ptrace_scope": ""}, false, ""},
	} {
		sys := fstest.MapFS{"kernel/seccomp/actions_avail": {Data: []byte(actions)}}
		for name, value := range tt.set {
			sys[name] = &fstest.MapFile{Data: []byte(value)}
		}
		var bad []string
		for _, f := range kernelFindings(sys, tt.root) {
			if f.ok {
				continue
			}
			if f.hint == "" {
				t.Errorf("%s: %s: no hint", tt.name, f.name)
			}
			if f.optional {
				f.name += "*"
			}
			bad = append(bad, f.name)
		}
		if got := strings.Join(bad, " "); got != tt.bad {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.bad)
		}
	}
	if f := seccompSupport(fstest.MapFS{}); f.ok || f.hint == "" {
		t.Errorf("a kernel without seccomp: %+v", f)
	}
}

func TestFindings(t *testing.T) {
	var out strings.Builder
	a := &app{stdout: &out}
	if err := a.findings([]finding{
		{name: "one", ok: true, found: "here", hint: "not told"},
		{name: "seventeen", optional: true, found: "little", hint: "more"},
	}); err != nil {
		t.Errorf("a warning is no failure: %v", err)
	}
	if err := a.findings([]finding{{name: "one", found: "two\nlines\x1b", hint: "do"}}); err == nil {
		t.Error("something is missing, and nothing fails")
	}
	const want = `ok       one        here
warning  seventeen  little
                    to do: more

This machine can build.
MISSING  one  two
              lines^[
              to do: do

This machine cannot build yet.
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
