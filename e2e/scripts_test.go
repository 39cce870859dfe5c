package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// TestScripts runs scripts/*.txtar: whole builds by the built binaries against
// a real registry that holds library/busybox and library/debian.
//
// Every script sees $REGISTRY (host:port, plain HTTP), $BUSYBOX and $DEBIAN
// (references there), and the commands of commands_test.go.
func TestScripts(t *testing.T) {
	bin := binaries(t)
	if os.Getuid() != 0 {
		t.Fatal("the scripts build base images: run as root")
	}
	ctx := t.Context()
	dir := t.TempDir()
	registry, err := rig.StartRegistry(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Stop)
	pushBases(ctx, t, registry)
	if err := rig.Adopt(); err != nil {
		t.Fatal(err)
	}
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "scripts",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Setup:               func(env *testscript.Env) error { return setup(env, bin, registry.Host) },
			Cmds:                commands(),
		})
	})
	if left := rig.Orphans(registry.PID()); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
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

func pushBases(ctx context.Context, t *testing.T, r *rig.Registry) {
	t.Helper()
	busybox, err := rig.Busybox(ctx)
	if err == nil {
		err = r.Push(ctx, busybox, "library/busybox:1")
	}
	if err != nil {
		t.Fatal(err)
	}
	debian, err := rig.Debian(ctx)
	if err == nil {
		err = r.Push(ctx, debian, "library/debian:1")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// setup gives a script an environment of its own: nothing of the user's home
// or credentials, and a $TMPDIR that has to be empty after every build. $SIDE is
// a directory for what must not lie in the context.
func setup(env *testscript.Env, bin, host string) error {
	env.Values[testKey{}] = env.T()
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
	env.Setenv("BIN", bin)
	env.Setenv("SIDE", side)
	env.Setenv("TOP", filepath.Dir(bin))
	env.Setenv("HOME", home)
	env.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	env.Setenv("TMPDIR", tmp)
	env.Setenv("REGISTRY", host)
	env.Setenv("BUSYBOX", host+"/library/busybox:1")
	env.Setenv("DEBIAN", host+"/library/debian:1")
	return nil
}
