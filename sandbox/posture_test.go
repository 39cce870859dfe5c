package sandbox

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestGoldenPosture shows in review what is measured of the walls of a build,
// from both sides, as root and as an ordinary user: a wall that gets lower
// changes a line of it. -update accepts.
func TestGoldenPosture(t *testing.T) {
	for _, tt := range []struct {
		name string
		as   ordinary
	}{{"root", nil}, {"user", someone(t)}} {
		if (tt.name == "root") != (os.Geteuid() == 0 && tt.as == nil) {
			continue // root's need root; then the user's need another
		}
		j := newJob(t, "ok")
		j.Push = true
		o, _ := startLauncher(t, j, tt.as).outcome(t)
		if o.Err != "" {
			t.Fatalf("%s: %s\n%+v", tt.name, o.Err, o.Wall)
		}
		got, err := json.MarshalIndent(normal(o.Result.Posture), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "posture-"+tt.name+".golden", string(got)+"\n")
	}
}

// normal takes out what differs between machines and releases: versions, the
// program, the user, and whether there is IPv6.
func normal(list []request.RolePosture) []request.RolePosture {
	list = slices.Clone(list)
	for i := range list {
		p := &list[i]
		p.Inside.Digest = "sha256:EXECUTOR"
		p.Inside.Network.Gateways = withoutColon(p.Inside.Network.Gateways)
		for j := range p.Inside.Network.Interfaces {
			n := &p.Inside.Network.Interfaces[j]
			n.Addresses = withoutColon(n.Addresses)
		}
		p.Outside.GVisor = "GVISOR"
		for j := range p.Outside.Processes {
			h := &p.Outside.Processes[j]
			if h.UID != nobody || h.GID != nobody {
				h.UID, h.GID = 1000, 1000
			}
		}
	}
	return list
}

func withoutColon(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.Contains(s, ":") })
}

// The digest is the same for two builds, another when a wall changes, and what
// `jq -cSj .posture | sha256sum` says.
func TestPostureDigest(t *testing.T) {
	var digests []string
	var last []request.RolePosture
	for range 3 {
		res, _, err := run(t, newJob(t, "ok"), nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := request.PostureDigest(res.Posture)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && len(digests) > 0 && d != digests[0] {
			t.Errorf("%s\n%s", asJSON(last), asJSON(res.Posture))
		}
		digests, last = append(digests, d), res.Posture
	}
	last[0].Outside.Processes[0].Seccomp = 0
	if d, err := request.PostureDigest(last); err != nil || d == digests[0] {
		t.Errorf("%s, %v: a wall that changed is not seen", d, err)
	}
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip("needs jq")
	}
	text := asJSON(map[string]any{"posture": last, "x": "<>&"})
	cmd := exec.Command("sh", "-c", "jq -cSj .posture | sha256sum")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := request.PostureDigest(last)
	if err != nil || "sha256:"+strings.Fields(string(out))[0] != want {
		t.Errorf("jq: %s, want %s, %v", out, want, err)
	}
}

// goodWalls are those of a build role's sandbox, and what its executor measures
// where they stand.
func goodWalls(t *testing.T) (walls, request.Posture) {
	t.Helper()
	c := sampleConfig()
	c.Version = "v1"
	b := goodBundle(t, c, modeRoot, request.RoleBuild)
	w := newWalls(b.c, b.l, b.m, b.spec, b.flags)
	const caps = "00000000a82425fb"
	return w, request.Posture{
		GVisor: true, Kernel: "4.19.0-gvisor", Executor: "v1", Digest: "sha256:e", Seccomp: 2,
		Denied: []string{"keyctl", "perf_event_open", "process_vm_readv", "ptrace", "setns"}, PID: 1,
		Capabilities: request.Capabilities{
			Inheritable: "0000000000000000", Permitted: caps, Effective: caps, Bounding: caps, Ambient: "0000000000000000",
		},
		Mounts: promisedMounts(b.spec),
		Network: request.Connection{
			Interfaces: []request.Interface{{Name: "eth0", Addresses: []string{"192.0.0.2/29", "fd6b:6275:696c:6400::2/64"}}},
			Gateways:   []string{"192.0.0.1", "fd6b:6275:696c:6400::1"},
		},
		Files: []string{"anon_inode", "anon_inode", "host", "host", "host", "host"},
	}
}

// Each thing that an executor can find otherwise than promised is named.
func TestVerifyInside(t *testing.T) {
	w, good := goodWalls(t)
	if err := w.verifyInside(good, "sha256:e"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, wall string
		do         func(*request.Posture)
	}{
		{"no gVisor", "gVisor", func(p *request.Posture) { p.GVisor = false }},
		{"no filter", "seccomp", func(p *request.Posture) { p.Seccomp = 0 }},
		{"a filter that stops nothing", "seccomp", func(p *request.Posture) { p.Denied = nil }},
		{"a filter that lets ptrace in", "seccomp", func(p *request.Posture) { p.Denied = []string{"keyctl"} }},
		{"no_new_privs", "no_new_privs", func(p *request.Posture) { p.NoNewPrivs = true }},
		{"a user namespace", "user namespace", func(p *request.Posture) { p.InUserns = true }},
		{"another user", "user", func(p *request.Posture) { p.UID = 1000 }},
		{"another group", "user", func(p *request.Posture) { p.GID = 1000 }},
		{"not the first process", "PID namespace", func(p *request.Posture) { p.PID = 2 }},
		{"company", "PID namespace", func(p *request.Posture) { p.Processes = 1 }},
		{"version", "executor", func(p *request.Posture) { p.Executor = "v2" }},
		{"program", "executor", func(p *request.Posture) { p.Digest = "sha256:f" }},
		{"no program", "executor", func(p *request.Posture) { p.Digest = "" }},
		{"permitted", "capabilities", func(p *request.Posture) { p.Capabilities.Permitted = "000001ffffffffff" }},
		{"effective", "capabilities", func(p *request.Posture) { p.Capabilities.Effective = "00000000a82425ff" }},
		{"bounding", "capabilities", func(p *request.Posture) { p.Capabilities.Bounding = "00000000a82c25fb" }},
		{"inheritable", "capabilities", func(p *request.Posture) { p.Capabilities.Inheritable = "0000000000000001" }},
		{"ambient", "capabilities", func(p *request.Posture) { p.Capabilities.Ambient = "0000000000000001" }},
		{"no capabilities", "capabilities", func(p *request.Posture) { p.Capabilities.Bounding = "" }},
		{"writable root", "mounts", func(p *request.Posture) { p.Mounts[0].Writable = true }},
		{"a mount more", "mounts", func(p *request.Posture) { p.Mounts = append(p.Mounts, request.Mounted{Target: "/x", Type: "9p"}) }},
		{"a mount less", "mounts", func(p *request.Posture) { p.Mounts = p.Mounts[1:] }},
		{"a mount twice", "mounts", func(p *request.Posture) { p.Mounts = append(p.Mounts[:1:1], p.Mounts...) }},
		{"no network", "network", func(p *request.Posture) { p.Network = request.Connection{} }},
		{"another interface", "network", func(p *request.Posture) {
			p.Network.Interfaces = append(p.Network.Interfaces, request.Interface{Name: "eth1"})
		}},
		{"the host's address", "network", func(p *request.Posture) { p.Network.Interfaces[0].Addresses = []string{"10.0.0.5/24"} }},
		{"another address", "network", func(p *request.Posture) {
			p.Network.Interfaces[0].Addresses = append(p.Network.Interfaces[0].Addresses, "10.0.0.5/24")
		}},
		{"another way", "network", func(p *request.Posture) { p.Network.Gateways = []string{"10.0.0.1"} }},
		{"no way", "network", func(p *request.Posture) { p.Network.Gateways = nil }},
		{"a file", "open files", func(p *request.Posture) { p.Files = append(p.Files, "/etc/shadow") }},
		{"a socket more", "open files", func(p *request.Posture) { p.Files = append(p.Files, "host") }},
	} {
		_, p := goodWalls(t)
		tt.do(&p)
		var we *WallError
		if err := w.verifyInside(p, "sha256:e"); !errors.As(err, &we) || we.Wall != tt.wall || !strings.HasPrefix(we.Msg, "inside: ") || we.Hint == "" {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.wall)
		}
	}
}

// With no network promised none may be there.
func TestVerifyNoNetwork(t *testing.T) {
	w, p := goodWalls(t)
	for i := range w.flags {
		if w.flags[i].Name == "network" {
			w.flags[i].Value = "none"
		}
	}
	if err := w.verifyNetwork(request.Connection{}); err != nil {
		t.Error(err)
	}
	if err := w.verifyNetwork(p.Network); err == nil {
		t.Error("a network is taken for none")
	}
}

// Without its annotation a workspace would be the host's, and is not promised to
// be anything else.
func TestPromisedMounts(t *testing.T) {
	w, _ := goodWalls(t)
	s := *w.spec
	s.Annotations = nil
	list := promisedMounts(&s)
	if !slices.Contains(list, request.Mounted{Target: guestWork, Type: "9p", Writable: true}) {
		t.Errorf("%+v", list)
	}
	if got := promisedMounts(&specs.Spec{Root: &specs.Root{}}); !got[0].Writable {
		t.Errorf("%+v", got)
	}
}
