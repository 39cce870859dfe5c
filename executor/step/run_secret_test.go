package step

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

func secretMount(id, target string) plan.Mount {
	m := plan.Mount{Type: "secret", ID: id, Target: target}
	ownedBy(&m, 0o400, 0, 0)
	return m
}

func ownedBy(m *plan.Mount, mode, uid, gid uint32) {
	m.Mode, m.UID, m.GID = &mode, &uid, &gid
}

// withSecrets lends secrets and returns how often each was asked for, and what
// was given out.
func (b *bench) withSecrets(values map[string]string) (asked map[string]int, given *[][]byte) {
	asked, given = map[string]int{}, new([][]byte)
	b.env.Secret = func(_ context.Context, id string) ([]byte, bool, error) {
		asked[id]++
		v, ok := values[id]
		if !ok {
			return nil, false, nil
		}
		*given = append(*given, []byte(v))
		return (*given)[len(*given)-1], true, nil
	}
	return asked, given
}

func TestMountSecret(t *testing.T) {
	b := newBench(t)
	asked, given := b.withSecrets(map[string]string{"a": "value-a", "b": "", "big": strings.Repeat("x", 500<<10)})
	script := "cat /run/secrets/a; echo; stat -c '%a %u:%g %s' /run/secrets/a; stat -f -c %T /run/secrets/a"
	upper := b.want(withMounts(script, secretMount("a", "/run/secrets/a")), "value-a\n400 0:0 7\ntmpfs\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	b.want(shell("ls -d /run /run/secrets 2>/dev/null || echo none"), "none\n")

	// Several targets, among them other mounts and a file of the image.
	upper = b.want(withMounts("cat /etc/passwd /t/x/y /plain; wc -c < /big; ls /t/x",
		plan.Mount{Type: "tmpfs", Target: "/t"}, secretMount("a", "/t/x/y"), secretMount("a", "/etc/passwd"),
		secretMount("b", "/plain"), secretMount("big", "/big")), "value-avalue-a512000\ny\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	if asked["a"] != 2 || asked["big"] != 1 {
		t.Errorf("asked %v: want once in a step", asked)
	}
	for _, g := range *given {
		if len(bytes.Trim(g, "\x00")) > 0 {
			t.Errorf("%.10q is kept after the step", g)
		}
	}
	if _, _, err := b.do(withMounts("true", secretMount("a", "/tmp"))); err == nil {
		t.Error("a secret was mounted over a directory")
	}
}

func TestMountSecretRights(t *testing.T) {
	b := newBench(t)
	b.withSecrets(map[string]string{"a": "#!/bin/sh\necho ran\n"})
	m := secretMount("a", "/s")
	b.want(withMounts("(echo x > /s) 2>/dev/null || rm /s 2>/dev/null || mv /s /t 2>/dev/null || echo kept; grep -c ' /s tmpfs ro,nosuid,nodev,noexec' /proc/self/mounts", m), "kept\n1\n")
	read := runAs("app", "cat /s 2>/dev/null || echo denied")
	read.Mounts = []plan.Mount{m}
	b.want(read, "denied\n")
	ownedBy(&read.Mounts[0], 0o440, 1000, 2000)
	read.Args[2] = "stat -c '%a %u:%g' /s; cat /s | wc -l"
	b.want(read, "440 1000:2000\n2\n")
	// It can be executed where its mode says so, as in BuildKit; a set-id bit is not taken.
	ownedBy(&m, 0o4555, 0, 0)
	b.want(withMounts("/s; stat -c %a /s", m), "ran\n555\n")
	if _, stderr := b.fails(withMounts("sh -c /s", secretMount("a", "/s")), 126); !strings.Contains(stderr, "ermission denied") {
		t.Errorf("executed without the mode for it: %s", stderr)
	}
}

// fails runs op, which must end with a code, and returns what it printed.
func (b *bench) fails(op *plan.Run, code int) (stdout, stderr string) {
	b.t.Helper()
	_, _, err := b.do(op)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != code {
		b.t.Errorf("%v, want exit code %d", err, code)
	}
	return b.out[1].String(), b.out[2].String()
}

func TestMountSecretVariable(t *testing.T) {
	b := newBench(t)
	b.withSecrets(map[string]string{
		"a": "value a\n", "zero": "a\x00b", "longest": strings.Repeat("x", 128<<10-len("V=")-1), "long": strings.Repeat("x", 128<<10-len("V=")),
	})
	variable := func(id, target string) plan.Mount {
		m := secretMount(id, target)
		m.Env = "V"
		return m
	}
	op := withMounts(`printf '[%s]' "$V"; env | grep -c ^V=; ls /run /s`, variable("a", ""))
	op.Env = []string{"V=of the image", "W=w"}
	b.fails(op, 1)
	if got := b.out[1].String(); got != "[value a\n]1\n" {
		t.Errorf("%q", got)
	}
	b.want(withMounts(`printf '%s' "$V"; cat /s`, variable("a", "/s")), "value a\nvalue a\n")
	b.want(shell(`echo "[$V]"`), "[]\n")
	b.want(withMounts(`echo "${V-unset}"; test -e /s || echo none`, variable("missing", "/s")), "\nnone\n")
	b.want(withMounts(`echo ${#V}`, variable("longest", "")), "131069\n")
	for id, want := range map[string]string{"zero": "zero byte", "long": "too large"} {
		_, _, err := b.do(withMounts("true", variable(id, "")))
		if err == nil || !strings.Contains(err.Error(), "secret "+id+": ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "xx") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestMountSecretMissing(t *testing.T) {
	b := newBench(t)
	m := secretMount("x", "/run/secrets/x")
	m.Required = true
	for _, lent := range []map[string]string{nil, {"y": "y"}} {
		if lent != nil {
			b.withSecrets(lent)
		}
		if _, _, err := b.do(withMounts("true", m)); err == nil || err.Error() != "secret x: not found" {
			t.Errorf("%v", err)
		}
	}
	b.env.Secret = func(context.Context, string) ([]byte, bool, error) { return nil, false, fs.ErrPermission }
	m.Required = false
	if _, _, err := b.do(withMounts("true", m)); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a secret that could not be had was taken as absent: %v", err)
	}
}

// TestMountSecretNowhereElse looks for the value, while the command has it, in
// all files of the workspace and in what a command beside it sees.
func TestMountSecretNowhereElse(t *testing.T) {
	b := newBench(t)
	value := "v-" + strings.Repeat("secret", 5)
	b.withSecrets(map[string]string{"a": value})
	looked := false
	b.env.Output = func(int, []byte) {
		looked = true
		found, err := filesWith(insandbox.Workspace, value)
		if err != nil || len(found) > 0 {
			t.Errorf("%v: the value is in %q", err, found)
		}
		other := b.tree.Fork()
		env := b.env
		env.Output = nil
		script := "grep -r " + value[:20] + " /proc/[0-9]*/environ /proc/[0-9]*/cmdline /tmp /dev/shm /run && exit 3; exit 0"
		script = strings.Replace(script, value[:20], value[:10]+"'"+value[10:20]+"'", 1)
		if _, err := Do(t.Context(), shell(script), other, env); err != nil {
			t.Errorf("a step beside it: %v", err)
		}
	}
	m := secretMount("a", "/s")
	m.Env = "V"
	if _, _, err := b.do(withMounts("echo now; sleep 1", m)); err != nil || !looked {
		t.Errorf("looked: %v, %v", looked, err)
	}
}

// filesWith are the regular files below dir that hold text.
func filesWith(dir, text string) (found []string, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte(text)) {
			found = append(found, p)
		}
		return err
	})
	slices.Sort(found)
	return found, err
}
