package sandbox

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// evil is what a tenant could write into every field that it has.
const evil = "dev.gvisor.flag.host-uds=all,size=1,../../etc"

func sampleConfig() Config {
	return Config{
		Context: "/home/user/app", Dockerfile: "/home/user/app/Dockerfile", Ignore: "/home/user/app/.dockerignore",
		Executor: "/opt/kbuild/kbuild-executor", WorkDir: "/var/tmp", Quota: 10 << 30, Runsc: &runsc.Runsc{Path: "/opt/kbuild/runsc"},
		Network:        Network{Run: policy.RunEgress()},
		DockerfileData: []byte("FROM " + evil), Contexts: []string{"/home/user/assets", "", "/srv/layout"},
		Request: request.Build{
			DockerfileName: evil, Target: evil, Platforms: []string{evil},
			Args: []request.KeyValue{{Key: evil, Value: evil}}, Labels: []request.KeyValue{{Key: evil, Value: evil}},
			Run: request.Run{Hostname: evil, DNS: []string{evil}}, Destinations: []string{evil},
			Contexts: []request.NamedContext{{Name: evil, Dir: "/home/user/assets"}, {Name: evil, Image: evil}, {Name: evil, Layout: "/srv/layout", Ref: evil}},
		},
	}
}

// TestGoldenSpec shows the whole spec in review; run with -update to accept.
func TestGoldenSpec(t *testing.T) {
	for name, tt := range map[string]struct {
		mode mode
		role request.Role
	}{
		"root": {modeRoot, request.RoleBuild}, "user": {modeUser, request.RoleBuild},
		"fetch": {modeUser, request.RoleFetch}, "push": {modeUser, request.RolePush},
	} {
		c, err := sampleConfig().prepared()
		if err != nil {
			t.Fatal(err)
		}
		c = c.playing(tt.role)
		s, err := newSpec(c, homeOf(filepath.Join(c.WorkDir, sampleName)).of(tt.role), tt.mode)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "evil") || strings.Contains(string(got), "host-uds") {
			t.Errorf("%s: a tenant's string is in the spec (R1)", name)
		}
		golden(t, "spec-"+name+".json", string(got)+"\n")
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs; -update accepts (-want +got):\n%s", name, d)
	}
}

// TestGoldenFlags shows every flag of runsc.
func TestGoldenFlags(t *testing.T) {
	c := sampleConfig()
	l := homeOf(filepath.Join(c.WorkDir, sampleName)).of(request.RoleBuild)
	golden(t, "flags.txt", strings.Join(runsc.Table(l.settings(c, modeRoot)).Args(), "\n")+"\n")
}

// Spec says the same as Run does, twice, and writes nothing.
func TestSpecIsDeterministic(t *testing.T) {
	c := sampleConfig()
	c.WorkDir = filepath.Join(t.TempDir(), "not", "there")
	one, flags, err := Spec(c, request.RoleBuild)
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := Spec(c, request.RoleBuild)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(one, two); d != "" {
		t.Error(d)
	}
	if flags.Get("oci-seccomp") != "true" || flags.Get("rootless") != "false" {
		t.Errorf("flags %v", flags)
	}
	if _, err := os.Stat(c.WorkDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the work directory was made: %v", err)
	}
}

// The rules about the spec that a golden file cannot say by itself.
func TestSpecRules(t *testing.T) {
	c, err := sampleConfig().prepared()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSpec(c, homeOf("/d").of(request.RoleBuild), modeRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Mounts {
		if m.Type != "bind" || m.Destination == guestWork {
			continue
		}
		if m.Options[0] != "ro" {
			t.Errorf("%s is a writable mount of the host", m.Destination)
		}
	}
	for k := range s.Annotations {
		if !strings.HasPrefix(k, "dev.gvisor.spec.mount.w.") {
			t.Errorf("annotation %s", k)
		}
	}
	if len(s.Annotations) != 4 || s.Hooks != nil || s.Linux.Devices != nil || s.Process.Terminal {
		t.Error("more in the spec than there should be")
	}
	if !s.Root.Readonly || s.Linux.Seccomp.DefaultAction != specs.ActErrno {
		t.Error("the root must be read-only and the filter an allow-list")
	}
	if c := s.Process.Capabilities; len(c.Inheritable) != 0 || len(c.Ambient) != 0 {
		t.Error("capabilities would pass to RUN steps")
	}
}

// What gVisor would misread is refused.
func TestSeccompForm(t *testing.T) {
	full := ^uint64(0)
	for _, tt := range []struct {
		name string
		args []policy.Arg
		want []specs.LinuxSeccompArg
		err  string
	}{
		{"equal", []policy.Arg{{Index: 1, Mask: full, Value: 5}}, []specs.LinuxSeccompArg{{Index: 1, Value: 5, Op: specs.OpEqualTo}}, ""},
		{"not equal", []policy.Arg{{Mask: full, Value: 5, Not: true}}, []specs.LinuxSeccompArg{{Value: 5, Op: specs.OpNotEqual}}, ""},
		{"masked", []policy.Arg{{Mask: 0xf0, Value: 0x10}}, []specs.LinuxSeccompArg{{Value: 0xf0, ValueTwo: 0x10, Op: specs.OpMaskedEqual}}, ""},
		{"masked not", []policy.Arg{{Mask: 0xf0, Value: 0x10, Not: true}}, nil, "masked inequality"},
		{"index", []policy.Arg{{Index: 6, Mask: full}}, nil, "argument 6 does not exist"},
		{"twice", []policy.Arg{{Index: 2, Mask: full}, {Index: 2, Mask: 1}}, nil, "two conditions on argument 2"},
	} {
		got, err := seccomp(policy.Table{Rules: []policy.Rule{
			{Names: []string{"a"}, Args: tt.args}, {Names: []string{"b"}, Errno: 38},
		}})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(tt.name, err)
		}
		want := []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActAllow, Args: tt.want}}
		if d := cmp.Diff(want, got.Syscalls); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}
