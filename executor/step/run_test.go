package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// shellBase is a stage with a shell and the auditor.
const shellBase = `
bin/
dev/
etc/
etc/passwd <root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n>
etc/group <root:x:0:\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:root,app\n>
home/app/ 0750 1000:1000
proc/
root/ 0700
sys/
tmp/ 1777
`

// bench is a workspace with one stage.
type bench struct {
	t     testing.TB
	space *rootfs.Space
	tree  *rootfs.Tree
	env   Env
	mu    sync.Mutex
	out   [3]bytes.Buffer
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir, err := os.MkdirTemp(insandbox.Workspace, "t")
	must(t, err)
	space, err := rootfs.New(dir)
	must(t, err)
	t.Cleanup(func() {
		if err := space.Close(); err != nil {
			t.Error(err)
		}
		if m, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(m, []byte(" "+dir+"/")) {
			t.Errorf("mounts left behind, %v:\n%s", err, m)
		}
		must(t, os.RemoveAll(dir))
	})
	base, err := space.Mkdir()
	must(t, err)
	grow(t, base, shellBase)
	program(t, "/bin/busybox", filepath.Join(base, "bin/busybox"))
	program(t, "/proc/self/exe", filepath.Join(base, "bin/auditor"))
	for _, n := range strings.Fields("sh cat ls id env grep stat sleep true false kill touch mkdir rm mv chmod chown echo head wc df mount unshare hostname ps pwd test sort tr ln seq dd readlink mknod nc ifconfig awk") {
		must(t, os.Symlink("busybox", filepath.Join(base, "bin", n)))
	}
	b := &bench{t: t, space: space, tree: space.Tree(base)}
	b.env = Env{Space: space, OpenCache: cachesIn(space), Output: func(stream int, data []byte) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.out[stream].Write(data)
	}}
	return b
}

// program makes src known as dst, without a copy where that is possible.
func program(t testing.TB, src, dst string) {
	t.Helper()
	data, err := os.ReadFile(src)
	must(t, err)
	must(t, os.WriteFile(dst, data, 0o755))
}

func shell(script string) *plan.Run {
	return &plan.Run{Args: []string{"/bin/sh", "-c", script}, Cwd: "/"}
}

func runAs(user, script string) *plan.Run {
	op := shell(script)
	op.User = user
	return op
}

// do runs op and returns its standard output and its upper directory.
func (b *bench) do(op *plan.Run) (stdout, upper string, err error) {
	b.t.Helper()
	for i := range b.out {
		b.out[i].Reset()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	upper, err = Do(ctx, op, b.tree, b.env)
	return b.out[1].String(), upper, err
}

// want runs op, which must work and print want.
func (b *bench) want(op *plan.Run, want string) (upper string) {
	b.t.Helper()
	got, upper, err := b.do(op)
	if err != nil || got != want {
		b.t.Errorf("%s:\n%v, output %q, errors %q; want %q", op.Args[len(op.Args)-1], err, got, b.out[2].String(), want)
	}
	return upper
}

// inUpper lists what an upper holds.
func inUpper(t testing.TB, upper string) []string {
	t.Helper()
	names := []string{}
	must(t, filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != upper {
			names = append(names, strings.TrimPrefix(p, upper))
		}
		return err
	}))
	return names
}

func TestRunBasics(t *testing.T) {
	b := newBench(t)
	upper := b.want(shell("echo out; echo err >&2; echo x > /file"), "out\n")
	if got := b.out[2].String(); got != "err\n" {
		t.Errorf("standard error: %q", got)
	}
	if got := inUpper(t, upper); !slices.Equal(got, []string{"/file"}) {
		t.Errorf("upper: %q, want the one file", got)
	}
	b.want(shell("cat /file"), "x\n")
	b.want(shell("cat; read x; echo $?"), "1\n") // no input
	b.want(shell("umask; hostname"), "0022\nbuildkitsandbox\n")
	b.want(shell("echo $$; cat /proc/1/cmdline | tr '\\0' ' '"), "1\n/bin/sh -c echo $$; cat /proc/1/cmdline | tr '\\0' ' ' ")
	b.want(&plan.Run{Args: []string{"echo", "a b", "$HOME"}, Cwd: "/"}, "a b $HOME\n")
	b.want(&plan.Run{Args: []string{"/bin/pwd"}, Cwd: "/home/app"}, "/home/app\n")
}

func TestRunEnvironment(t *testing.T) {
	b := newBench(t)
	op := shell("env | grep -v PWD | sort")
	b.want(op, "HOME=/root\nPATH="+defaultPath+"\nSHLVL=1\n")
	op.Env = []string{"A=1", "PATH=/bin", "A=2", "HOME=/h", "ODD==x\ny"}
	b.want(op, "A=2\nHOME=/h\nODD==x\nPATH=/bin\nSHLVL=1\ny\n")
}

func TestRunUser(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ user, want string }{
		{"", "0 0 0 2001 /root\n"},
		{"app", "1000 1000 1000 2000 2001 /home/app\n"},
		{"1000", "1000 1000 1000 2000 2001 /home/app\n"},
		{"app:extra", "1000 2000 2000 /home/app\n"},
		{"4242", "4242 0 0 /\n"},
		{"4242:4343", "4242 4343 4343 /\n"},
	} {
		b.want(runAs(c.user, "echo $(id -u) $(id -g) $(id -G) $HOME"), c.want)
	}
	for user, want := range map[string]string{
		"ghost":     "unable to find user ghost: no matching entries in passwd file",
		"app:ghost": "unable to find group ghost: no matching entries in group file",
	} {
		_, _, err := b.do(runAs(user, "id"))
		if err == nil || err.Error() != `process "/bin/sh -c id" did not complete successfully: `+want {
			t.Errorf("%s: %v", user, err)
		}
	}
	b.want(runAs("app", "echo one > /dev/stdout; echo two > /dev/stderr; echo > /dev/null"), "one\n")
	b.want(runAs("app", "touch /tmp/f /home/app/f; touch /f 2>/dev/null || echo refused"), "refused\n")
}

func TestRunExit(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		args         []string
		code, signal int
		want         string
	}{
		{[]string{"/bin/sh", "-c", "exit 42"}, 42, 0, `process "/bin/sh -c exit 42" did not complete successfully: exit code: 42`},
		{[]string{"/bin/sh", "-c", "nonsense"}, 127, 0, `process "/bin/sh -c nonsense" did not complete successfully: exit code: 127`},
		{[]string{"nonsense"}, 127, 0, `process "nonsense" did not complete successfully: exec "nonsense": not found in $PATH: no such file or directory`},
		{[]string{"/nonsense"}, 127, 0, `process "/nonsense" did not complete successfully: exec /nonsense: no such file or directory`},
		{[]string{"/etc/passwd"}, 126, 0, `process "/etc/passwd" did not complete successfully: exec /etc/passwd: permission denied`},
		{[]string{"/etc"}, 126, 0, `process "/etc" did not complete successfully: exec /etc: permission denied`},
		// As a segmentation fault does; SIGKILL from within does nothing to process 1.
		{[]string{"sh", "-c", "sleep 9 & kill -9 $$; kill -11 $$"}, 128 + 11, 11, `process "sh -c sleep 9 & kill -9 $$; kill -11 $$" did not complete successfully: exit code: 139`},
	} {
		_, _, err := b.do(&plan.Run{Args: c.args, Cwd: "/"})
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != c.code || exit.Signal != c.signal || err.Error() != c.want {
			t.Errorf("%q: %#v\n%v, want\n%s", c.args, exit, err, c.want)
		}
	}
	// Nothing of a failed step stays.
	if _, _, err := b.do(shell("echo x > /left; false")); err == nil {
		t.Error("no error")
	}
	b.want(shell("test -e /left || echo gone"), "gone\n")
}

func TestRunRefused(t *testing.T) {
	b := newBench(t)
	for want, op := range map[string]*plan.Run{
		"--network=other":     {Args: []string{"true"}, Network: "other"},
		"without a command":   {},
		"secret token":        {Args: []string{"true"}, Mounts: []plan.Mount{{Type: "secret", ID: "token", Required: true}}},
		"no SSH key":          {Args: []string{"true"}, Mounts: []plan.Mount{{Type: "ssh", Required: true}}},
		"type=pony":           {Args: []string{"true"}, Mounts: []plan.Mount{{Type: "pony", Target: "/x"}}},
		"not a directory":     {Args: []string{"true"}, Cwd: "/etc/passwd"},
		"root cannot be":      {Args: []string{"true"}, Mounts: []plan.Mount{{Type: "tmpfs", Target: "/"}}},
		"/etc/passwd: not a ": {Args: []string{"true"}, Mounts: []plan.Mount{{Type: "tmpfs", Target: "/etc/passwd"}}},
	} {
		if _, _, err := b.do(op); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestRunLeavesNothing: neither processes nor stubs nor times outlive a step.
func TestRunLeavesNothing(t *testing.T) {
	b := newBench(t)
	before, err := os.ReadDir("/proc")
	must(t, err)
	start := time.Now()
	upper := b.want(shell("(sleep 100 &); sleep 200 & echo done"), "done\n")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a background process held the step up for %v", d)
	}
	if got := inUpper(t, upper); len(got) > 0 {
		t.Errorf("upper of a step that writes nothing: %q", got)
	}
	after, err := os.ReadDir("/proc")
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("%d entries in /proc, %d before", len(after), len(before))
	}
	upper = b.want(shell("touch /etc/new; grep -c localhost /etc/hosts; test -f /etc/resolv.conf; touch /dev/x /dev/shm/x"), "2\n")
	if got := inUpper(t, upper); !slices.Equal(got, []string{"/etc", "/etc/new"}) {
		t.Errorf("upper: %q", got)
	}
	b.want(shell("ls /etc; ls /dev/shm"), "group\nhosts\nnew\npasswd\nresolv.conf\n")
}

// TestRunStragglers: gVisor reports the end of process 1 before the processes
// that it took along are gone. None may write when the step has ended.
func TestRunStragglers(t *testing.T) {
	b := newBench(t)
	for range 5 {
		upper := b.want(shell("for i in 1 2 3 4 5 6; do (while :; do echo x >> /grow$i; done) & done; sleep 0.1"), "")
		sizes := func() (n int64) {
			for _, f := range inUpper(t, upper) {
				if st, err := os.Stat(upper + f); err == nil {
					n += st.Size()
				}
			}
			return n
		}
		before := sizes()
		time.Sleep(20 * time.Millisecond)
		if after := sizes(); before == 0 || after != before {
			t.Errorf("%d bytes at the end of the step, %d later", before, after)
		}
	}
}

func TestIsOrphan(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (sleep) S 0 7 7 0":          true,
		"7 (sleep) S 3 7 7 0":          false,
		"7 (sleep) Z 0 7 7 0":          false,
		"7 (x) S 0 (y) 1) R 3 7 7 0":   false,
		"7 (x) S 3 (y) 1) R 0 7 7 0":   true,
		"7 (no end":                    false,
		"":                             false,
		"7 ()":                         false,
		"7 () S":                       false,
		"12 (a\nb) R 0 12 12 0 -1 420": true,
	} {
		if got := isOrphan([]byte(stat)); got != want {
			t.Errorf("%q: %v, want %v", stat, got, want)
		}
	}
	if n, err := orphans(); n != 0 || err != nil {
		t.Errorf("%d orphans, %v", n, err)
	}
}

func TestRunKernelDirectories(t *testing.T) {
	b := newBench(t)
	base := b.tree.Lowers()[0]
	for _, d := range []string{"proc", "sys", "dev"} {
		must(t, os.Remove(filepath.Join(base, d)))
	}
	upper := b.want(shell("test -r /proc/self/status && test -d /sys/class && test -c /dev/null && echo ok"), "ok\n")
	// As BuildKit leaves them.
	if got := inUpper(t, upper); !slices.Equal(got, []string{"/dev", "/proc", "/sys"}) {
		t.Errorf("upper: %q", got)
	}
	must(t, os.Symlink("/etc", filepath.Join(base, "proc")))
	b.tree = b.space.Tree(base)
	if _, _, err := b.do(shell("true")); err == nil || !strings.Contains(err.Error(), "/proc of the image is not a directory") {
		t.Errorf("/proc is a link: %v", err)
	}
}

func TestRunCreatesCwd(t *testing.T) {
	b := newBench(t)
	op := shell("pwd")
	op.Cwd = "/srv/deep"
	if got := inUpper(t, b.want(op, "/srv/deep\n")); !slices.Equal(got, []string{"/srv", "/srv/deep"}) {
		t.Errorf("upper: %q", got)
	}
}

// TestRunCwdOutside is Leaky Vessels (CVE-2024-21626): a working directory
// through an open descriptor.
func TestRunCwdOutside(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		op := shell("pwd; ls")
		op.Cwd = fmt.Sprintf("/proc/self/fd/%d", i)
		if out, _, err := b.do(op); err == nil && strings.Contains(out, "w\n") {
			t.Errorf("%s: %s", op.Cwd, out)
		}
	}
}

func TestRunHostsAndNames(t *testing.T) {
	b := newBench(t)
	b.env.Run = request.Run{
		Hostname: "builder", ShmSize: 32 << 20, DNS: []string{"nameserver 192.0.2.1", "search test"},
		Hosts: []request.KeyValue{{Key: "db.test", Value: "10.1.2.3"}},
	}
	b.want(shell("hostname; cat /etc/hosts /etc/resolv.conf; df -k /dev/shm | tail -n 1 | awk '{print $2}'"),
		"builder\n127.0.0.1\tlocalhost builder\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb.test\n"+
			"nameserver 192.0.2.1\nsearch test\n32768\n")
	b.want(shell("echo x > /etc/hosts || echo refused"), "refused\n")
}

// TestRunLinkedFiles: the image's /etc/resolv.conf may be a link, also one that
// leads nowhere or tries to lead out.
func TestRunLinkedFiles(t *testing.T) {
	for _, target := range []string{"../run/resolve/stub.conf", "/run/x", "../../../../../../src/x", "passwd"} {
		b := newBench(t)
		b.env.Run.DNS = []string{"nameserver 192.0.2.9"}
		must(t, os.Symlink(target, filepath.Join(b.tree.Lowers()[0], "etc/resolv.conf")))
		if got := inUpper(t, b.want(shell("cat /etc/resolv.conf"), "nameserver 192.0.2.9\n")); len(got) > 0 {
			t.Errorf("%s: upper: %q", target, got)
		}
	}
}

func TestRunNetworkNone(t *testing.T) {
	b := newBench(t)
	op := shell("grep -c : /proc/net/dev; (echo hello | nc -l -p 9999 > /dev/null &) ; sleep 0.2; nc 127.0.0.1 9999 < /dev/null")
	op.Network = "none"
	b.want(op, "1\nhello\n")

	op = shell("ls /sys/class/net; cat /sys/class/net/lo/ifindex; wc -l </proc/net/route; touch /sys/class/x /proc/net/x 2>/dev/null || echo read-only")
	op.Network = "none"
	b.want(op, "lo\n1\n1\nread-only\n")
}

func TestRunHereDocuments(t *testing.T) {
	b := newBench(t)
	op := &plan.Run{
		Args: []string{"/bin/sh", "-c", "/dev/pipes/EOF; cat /dev/pipes/data"}, Cwd: "/",
		Files: []plan.File{{Name: "EOF", Data: []byte("#!/bin/sh\necho script\n"), Mode: 0o755}, {Name: "data", Data: []byte("d\n"), Mode: 0o644}},
	}
	if got := inUpper(t, b.want(op, "script\nd\n")); len(got) > 0 {
		t.Errorf("upper: %q", got)
	}
	op.Files[0].Name = "../../etc/passwd"
	if _, _, err := b.do(op); err == nil {
		t.Error("a here-document left its directory")
	}
}

func TestRunLargeOutput(t *testing.T) {
	b := newBench(t)
	out, _, err := b.do(shell("head -c 5000000 /dev/zero; seq 1 100000 >&2"))
	if err != nil || len(out) != 5000000 || b.out[2].Len() != 588895 {
		t.Errorf("%v, %d and %d bytes", err, len(out), b.out[2].Len())
	}
}

func TestRunCancel(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(500*time.Millisecond, cancel)
	start := time.Now()
	_, err := Do(ctx, shell("trap '' TERM INT; (sleep 60 &); sleep 60"), b.tree, b.env)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestRunsAtOnce(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	for i := range 6 {
		tree := b.tree.Fork()
		wg.Go(func() {
			for j := range 3 {
				if _, err := Do(context.Background(), shell(fmt.Sprintf("echo %d > /f%d; test $(ls / | grep -c ^f) = %d", i, j, j+1)), tree, b.env); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkRun(b *testing.B) {
	be := newBench(b)
	for b.Loop() {
		if _, err := Do(context.Background(), &plan.Run{Args: []string{"/bin/true"}, Cwd: "/"}, be.tree.Fork(), be.env); err != nil {
			b.Fatal(err)
		}
	}
}
