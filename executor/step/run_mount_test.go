package step

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func withMounts(script string, mounts ...plan.Mount) *plan.Run {
	op := shell(script)
	op.Mounts = mounts
	return op
}

// withContext gives the bench a context.
func (b *bench) withContext(tree string) {
	dir, err := b.space.Mkdir()
	must(b.t, err)
	grow(b.t, dir, tree)
	b.env.Context = Source{Root: dir}
}

func bindMount(source, target string) plan.Mount {
	return plan.Mount{Type: "bind", Source: source, Target: target, ReadOnly: true}
}

func TestMountBind(t *testing.T) {
	b := newBench(t)
	b.withContext(`
a.txt <a\n>
d/f <f\n>
link -> d
out -> /etc
`)
	ls := "ls /m; cat /m/a.txt; echo x > /m/x || echo refused"
	upper := b.want(withMounts(ls, bindMount("/", "/m")), "a.txt\nd\nlink\nout\na\nrefused\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	b.want(withMounts("cat /new/deep/point /etc/passwd", bindMount("a.txt", "/new/deep/point"), bindMount("/d/f", "/etc/passwd")), "a\nf\n")
	b.want(withMounts("ls /m", bindMount("link", "/m")), "f\n")
	if _, _, err := b.do(withMounts("ls /m", bindMount("out/passwd", "/m"))); err == nil {
		t.Error("a link in the context led out of it")
	}
	_, _, err := b.do(withMounts("true", bindMount("missing", "/m")))
	if err == nil || !strings.Contains(err.Error(), `"/missing": not found`) {
		t.Errorf("missing source: %v", err)
	}
	rw := bindMount("/", "/m")
	rw.ReadOnly = false
	b.want(withMounts("echo new > /m/new; rm /m/a.txt; ls /m", rw), "d\nlink\nnew\nout\n")
	b.want(withMounts("ls /m", bindMount("/", "/m")), "a.txt\nd\nlink\nout\n")
}

func TestMountBindIgnored(t *testing.T) {
	b := newBench(t)
	b.withContext("a.txt <a>\nsecret <s>\nd/hidden <f>\nd/seen <f>\ngone/x <x>\n")
	b.env.Context.Excluded = func(rel string, dir bool) (bool, error) {
		return slices.Contains([]string{"secret", "d/hidden", "gone"}, rel), nil
	}
	b.want(withMounts("cd /m; ls -d * */*", bindMount("/", "/m")), "a.txt\nd\nd/seen\n")
	if _, _, err := b.do(withMounts("true", bindMount("secret", "/m"))); err == nil {
		t.Error("an ignored file can be mounted")
	}
}

// TestMountBindOwners: the context's files are root's, whoever owns them where
// the launcher runs, and their names are no patterns.
func TestMountBindOwners(t *testing.T) {
	b := newBench(t)
	b.withContext("[x]/f <f>\nx/g <g>\n*.txt <star>\na.txt <a>\n")
	for _, p := range []string{"[x]/f", "x", "x/g", "*.txt"} {
		if err := os.Lchown(filepath.Join(b.env.Context.Root, p), 1234, 5678); err != nil {
			t.Fatal(err)
		}
	}
	b.want(withMounts("cd /m; stat -c '%u:%g %n' x x/g", bindMount("/", "/m")), "0:0 x\n0:0 x/g\n")
	b.want(withMounts("cd /m; ls; stat -c %u .", bindMount("/[x]", "/m")), "f\n0\n")
	b.want(withMounts("cat /m; stat -c %u /m", bindMount("/*.txt", "/m")), "star0\n")
}

func TestMountBindStage(t *testing.T) {
	b := newBench(t)
	other := b.tree.Fork()
	if _, err := Do(t.Context(), shell("mkdir /made; echo s > /made/f; chown 7:8 /made/f"), other, b.env); err != nil {
		t.Fatal(err)
	}
	stage := &plan.Stage{ID: 3, Name: "other"}
	b.env.Stage = func(id plan.StageID) *rootfs.Tree {
		if id == 3 {
			return other
		}
		return nil
	}
	m := bindMount("/made", "/m")
	m.From = plan.From{Kind: plan.FromStage, Stage: stage}
	b.want(withMounts("stat -c '%u:%g %n' /m/f", m), "7:8 /m/f\n")
	m.From.Stage = &plan.Stage{ID: 4, Name: "missing"}
	if _, _, err := b.do(withMounts("true", m)); err == nil {
		t.Error("a stage that is not there can be mounted")
	}
}

func TestMountTmpfs(t *testing.T) {
	b := newBench(t)
	m := plan.Mount{Type: "tmpfs", Target: "/t", Size: 1 << 20}
	upper := b.want(withMounts("df -k /t | tail -n 1 | awk '{print $2}'; head -c 2000000 /dev/zero > /t/big 2>/dev/null || echo full; ls -d /t/*", m),
		"1024\nfull\n/t/big\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	b.want(withMounts("stat -c %a /tmp; touch /tmp/x", plan.Mount{Type: "tmpfs", Target: "/tmp"}), "1777\n")
	b.want(shell("ls /tmp"), "")
}

func TestMountNested(t *testing.T) {
	b := newBench(t)
	b.withContext(`d/a.txt <a\n>`)
	upper := b.want(withMounts("ls /m; cat /m/in/a.txt /m/file; ls /dev/mine",
		plan.Mount{Type: "tmpfs", Target: "/m"}, bindMount("d", "/m/in"),
		plan.Mount{Type: "cache", Target: "/m/c", ID: "/m/c"}, bindMount("d/a.txt", "/m/file"),
		bindMount("d", "/dev/mine")), "c\nfile\nin\na\na\na.txt\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
}

func TestMountCache(t *testing.T) {
	b := newBench(t)
	mode, id := uint32(0o711), uint32(1000)
	m := plan.Mount{Type: "cache", Target: "/c", ID: "x", Mode: &mode, UID: &id, GID: &id}
	b.want(withMounts("stat -c '%a %u %g' /c; echo kept > /c/f", m), "711 1000 1000\n")
	m.Target = "/other"
	m.Sharing = "locked"
	b.want(withMounts("cat /other/f", m), "kept\n")
	m.ReadOnly = true
	b.want(withMounts("cat /other/f; touch /other/g || echo refused", m), "kept\nrefused\n")
	both := m
	both.Target, both.ReadOnly = "/both", false
	for _, mounts := range [][]plan.Mount{{m, both}, {both, m}} {
		b.want(withMounts("touch /other/g || echo refused; echo x > /both/h && cat /other/h", mounts...), "refused\nx\n")
	}
	m.ID = "y"
	b.want(withMounts("ls /other", m), "")
}

func TestMountCacheFromStage(t *testing.T) {
	b := newBench(t)
	seed := b.tree.Fork()
	if _, err := Do(t.Context(), shell("mkdir -p /s/pkg; echo seeded > /s/pkg/f; chown 7:8 /s"), seed, b.env); err != nil {
		t.Fatal(err)
	}
	b.env.Stage = func(plan.StageID) *rootfs.Tree { return seed }
	m := plan.Mount{Type: "cache", Target: "/c", ID: "/c", Source: "/s", From: plan.From{Kind: plan.FromStage, Stage: &plan.Stage{}}}
	b.want(withMounts("cat /c/pkg/f; stat -c %u:%g /c; rm /c/pkg/f; echo more > /c/new", m), "seeded\n7:8\n")
	b.want(withMounts("ls /c /c/pkg", m), "/c:\nnew\npkg\n\n/c/pkg:\n")
	m.Source = "/s/pkg/f"
	if _, _, err := b.do(withMounts("true", m)); err == nil {
		t.Error("a file was taken as a cache")
	}
	// With a mode a new directory is asked for, as in BuildKit: of the stage only
	// its name counts.
	mode := uint32(0o1777)
	m.Source, m.Mode = "/", &mode
	b.want(withMounts("stat -c '%a %u:%g' /c; ls /c; touch /c/own", m), "1777 0:0\n")
	m.Source = "/s"
	b.want(withMounts("ls /c", m), "new\npkg\n")
	m = plan.Mount{Type: "cache", Target: "/c", ID: "/c", Source: "/s", From: plan.From{Kind: plan.FromScratch}}
	if _, _, err := b.do(withMounts("true", m)); err == nil || !strings.Contains(err.Error(), `RUN --mount=type=cache: "/s": not found`) {
		t.Errorf("a source in nothing: %v", err)
	}
}

// TestMountCacheSharing runs two commands at once that see whether they meet.
func TestMountCacheSharing(t *testing.T) {
	for sharing, want := range map[string]bool{"shared": true, "private": false, "locked": false} {
		b := newBench(t)
		var wg sync.WaitGroup
		var both atomic.Int32
		for range 2 {
			m := plan.Mount{Type: "cache", Target: "/c", ID: "x", Sharing: sharing}
			again := plan.Mount{Type: "cache", Target: "/again", ID: "x", Sharing: sharing}
			tree := b.tree.Fork()
			wg.Go(func() {
				script := "mkdir /c/there || exit 9; sleep 1; rmdir /c/there"
				_, err := Do(t.Context(), withMounts(script, m, again), tree, b.env)
				var exit *ExitError
				if errors.As(err, &exit) && exit.Code == 9 {
					both.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if met := both.Load() > 0; met != want {
			t.Errorf("%s: two commands at once in one directory: %v, want %v", sharing, met, want)
		}
	}
}

func TestMountSecretAbsent(t *testing.T) {
	b := newBench(t)
	upper := b.want(withMounts("test -e /run/secrets/x || echo absent",
		plan.Mount{Type: "secret", ID: "x", Target: "/run/secrets/x"}, plan.Mount{Type: "ssh"}), "absent\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
}

// TestMountParentsLookTheSame: a directory that got a mount point keeps owner,
// mode and time, and keeps owner and mode where a file beside the mount point
// makes it part of the layer.
func TestMountParentsLookTheSame(t *testing.T) {
	b := newBench(t)
	b.want(shell("mkdir -p /p/q; chown 5:6 /p; chmod 2750 /p; touch -d '2001-02-03 04:05:06' /p/q /p"), "")
	tmpfs := plan.Mount{Type: "tmpfs", Target: "/p/mount"}
	stat, want := "stat -c '%a %u:%g %y' /p; ls /p", "2750 5:6 2001-02-03 04:05:06.000000000 +0000\n"
	upper := b.want(withMounts(stat, tmpfs), want+"mount\nq\n")
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	b.want(shell(stat), want+"q\n")
	upper = b.want(withMounts("echo k > /p/kept", tmpfs), "")
	if got := inUpper(t, upper); !slices.Equal(got, []string{"/p", "/p/kept"}) {
		t.Errorf("upper: %q", got)
	}
	b.want(shell("stat -c '%a %u:%g' /p; ls /p"), "2750 5:6\nkept\nq\n")
}

// TestMountTargetThroughLink: a link of the image on the way to a mount point
// leads nowhere but into the image.
func TestMountTargetThroughLink(t *testing.T) {
	b := newBench(t)
	base := b.tree.Lowers()[0]
	outside, err := os.MkdirTemp("", "outside")
	must(t, err)
	defer os.RemoveAll(outside)
	for name, target := range map[string]string{"abs": outside, "up": "../../../../.." + outside, "magic": "/proc/1/root"} {
		must(t, os.Symlink(target, filepath.Join(base, name)))
	}
	for _, target := range []string{"/abs/m", "/up/m"} {
		b.want(withMounts("ls -d "+target, plan.Mount{Type: "tmpfs", Target: target}), target+"\n")
	}
	if _, _, err := b.do(withMounts("true", plan.Mount{Type: "tmpfs", Target: "/magic/tmp"})); err == nil {
		t.Error("a mount point through /proc/1/root was taken")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

// TestMountSourceNames: what a source is called must not make it another one.
// The names of the first lie when bytes are replaced; those of the others, as
// mount options, are further lowers or an upper of the overlay.
func TestMountSourceNames(t *testing.T) {
	b := newBench(t)
	outside, err := b.space.Mkdir()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	stage := b.tree.Fork()
	script := `d=$(printf 'a\377'); mkdir -p "/$d/in" /x "/x:` + outside + `" "/x,upperdir=` + outside + `"
		echo right > "/$d/in/f"; ln -s ` + filepath.Dir(outside) + ` "/$(printf 'a\357\277\275')"; ln -s "$d/in" /l
		ln -s "$d" /up; mkdir "/$d/` + filepath.Base(outside) + `"`
	if _, err := Do(t.Context(), shell(script), stage, b.env); err != nil {
		t.Fatal(err)
	}
	b.env.Stage = func(plan.StageID) *rootfs.Tree { return stage }
	from := plan.From{Kind: plan.FromStage, Stage: &plan.Stage{}}
	bind := func(source string) plan.Mount {
		return plan.Mount{Type: "bind", Source: source, Target: "/m", ReadOnly: true, From: from}
	}
	b.want(withMounts("cat /m/f", bind("/l")), "right\n")
	b.want(withMounts("ls /m", bind("/up/"+filepath.Base(outside))), "")
	b.want(withMounts("ls /m", bind("/x:"+outside)), "")
	for _, source := range []string{"/x:" + outside, "/x,upperdir=" + outside} {
		m := plan.Mount{Type: "cache", Source: source, Target: "/m", ID: "/m", From: from}
		if got, _, err := b.do(withMounts("ls /m", m)); err == nil {
			t.Errorf("a cache from %q: %q, want an error", source, got)
		}
	}
}
