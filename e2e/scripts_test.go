package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/cgroup"
)

// TestScripts runs scripts/*.txtar: whole builds by the built binaries against
// a real registry that holds library/busybox and library/debian, as root, and as an
// ordinary user but for those that say [once]. What is about root alone asks for it
// with [root].
//
// Every script sees $REGISTRY (host:port, plain HTTP), $BUSYBOX and $DEBIAN
// (references there), and the commands of commands_test.go.
func TestScripts(t *testing.T) {
	bin := binaries(t)
	if os.Getuid() != 0 {
		t.Fatal("the scripts build base images: run as root")
	}
	bases := baseImages(t)
	if err := rig.Adopt(); err != nil {
		t.Fatal(err)
	}
	for _, as := range []struct {
		name string
		uid  int
		bin  string
	}{{"root", 0, bin}, {"user", someone, asSomeone(t, bin)}} {
		t.Run(as.name, func(t *testing.T) {
			host := registryWith(t, bases)
			testscript.Run(t, testscript.Params{
				Dir:                 "scripts",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup:               func(env *testscript.Env) error { return setup(env, as.bin, host, as.uid) },
				Cmds:                commands(),
				Condition:           func(name string) (bool, error) { return condition(name, as.uid) },
			})
		})
	}
	if left := rig.Orphans(); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// condition knows "root": the builds are root's; "once": they are not, and this is not the
// place to build all again that does not depend on who builds ($KBUILD_ALL is that place);
// and "cgroup": a control group with limits can be made here.
func condition(name string, uid int) (bool, error) {
	switch {
	case name == "root":
		return uid == 0, nil
	case name == "once":
		return uid != 0 && os.Getenv("KBUILD_ALL") == "", nil
	case name != "cgroup":
		return false, fmt.Errorf("unknown condition %s", name)
	case uid != 0:
		return false, nil // nothing is delegated to the tests' user
	}
	group, err := cgroup.Make(cgroup.Want{
		Limits: cgroup.Limits{Memory: 1 << 30, CPUQuota: 100000, Tasks: 1000}, Name: "kbuild-sandbox-e2e",
	})
	if err != nil {
		return false, nil
	}
	return true, group.Remove(context.Background())
}

// binaries is the directory with the product's binaries.
func binaries(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("KBUILD_BIN")
	if bin == "" {
		bin = "../bin"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kbuild-sandbox", "kbuild-executor", "runsc"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run make build", err)
		}
	}
	return bin
}

// baseImages makes what the registries of the scripts have.
func baseImages(t *testing.T) map[string]v1.Image {
	t.Helper()
	busybox, err := rig.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	debian, err := rig.Debian(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]v1.Image{"library/busybox:1": busybox, "library/debian:1": debian}
}

func pushBases(ctx context.Context, t *testing.T, r *rig.Registry) {
	t.Helper()
	for name, image := range baseImages(t) {
		if err := r.Push(ctx, image, name); err != nil {
			t.Fatal(err)
		}
	}
}

// registryWith starts a registry with these images in it and returns its host.
func registryWith(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	r, err := rig.StartRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	for name, image := range images {
		if err := r.Push(t.Context(), image, name); err != nil {
			t.Fatal(err)
		}
	}
	return r.Host
}

// setup gives a script an environment of its own, for builds of the user $AS by
// the programs of bin: nothing of the user's home
// or credentials, and a $TMPDIR that has to be empty after every build. $SIDE is
// a directory for what must not lie in the context.
func setup(env *testscript.Env, bin, host string, uid int) error {
	env.Values[testKey{}] = env.T()
	if err := os.Chmod(filepath.Dir(env.WorkDir), 0o755); err != nil { // an ordinary user goes through
		return err
	}
	top, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	side, err := os.MkdirTemp("", "e2e-") // beside the context, and short
	if err != nil {
		return err
	}
	env.Defer(func() {
		detach(side)
		os.RemoveAll(side)
	})
	home, tmp := filepath.Join(side, "home"), filepath.Join(side, "tmp")
	for _, d := range []string{home, tmp, filepath.Join(home, ".docker")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	env.Setenv("BIN", programs(bin, uid))
	env.Setenv("SIDE", side)
	env.Setenv("TOP", top)
	env.Setenv("AS", strconv.Itoa(uid))
	env.Setenv("HOME", home)
	env.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	env.Setenv("TMPDIR", tmp)
	// Git takes directories of others for traps; here whoever builds owns all.
	env.Setenv("GIT_CONFIG_COUNT", "1")
	env.Setenv("GIT_CONFIG_KEY_0", "safe.directory")
	env.Setenv("GIT_CONFIG_VALUE_0", "*")
	env.Setenv("REGISTRY", host)
	env.Setenv("BUSYBOX", host+"/library/busybox:1")
	env.Setenv("DEBIAN", host+"/library/debian:1")
	return nil
}
