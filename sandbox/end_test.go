package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// soon is how long an end may take on a machine that is busy with other things; on
// a quiet one it is a tenth of that. Waiting for nothing would take a minute.
const soon = 10 * time.Second

// Ctrl-C ends the sandbox within the two seconds that the user is promised,
// whether the executor helps or not.
func TestCancel(t *testing.T) {
	for _, act := range []string{"hang", "deaf", "layout hang", "tar hang"} {
		t.Run(act, func(t *testing.T) {
			j := newJob(t, act)
			j.Layout, j.Tar = filepath.Join(j.Base, "out"), filepath.Join(j.Base, "deep", "er", "tar")
			if act == "tar hang" {
				j.Layout = ""
			}
			c, err := j.config(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rec := newRecorder()
			c.Sink = rec
			ctx, cancel := context.WithCancel(t.Context())
			type end struct {
				err error
				at  time.Time
			}
			ended := make(chan end)
			go func() {
				_, err := Run(ctx, c)
				ended <- end{err, time.Now()}
			}()
			rec.wait(t, "waiting")
			start := time.Now()
			cancel()
			e := <-ended
			took := e.at.Sub(start)
			t.Log("gone after", took)
			if !errors.Is(e.err, context.Canceled) {
				t.Errorf("error %v", e.err)
			}
			if took > soon {
				t.Errorf("took %v", took)
			}
			for _, p := range []string{"out", "deep"} {
				if _, err := os.Stat(filepath.Join(j.Base, p)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("left: %s (%v)", p, err)
				}
			}
		})
	}
}

func TestCancelBeforeStart(t *testing.T) {
	c, err := newJob(t, "ok").config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("changed my mind")
	cancel(cause)
	if _, err := Run(ctx, c); !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
}

// launcher is a launcher in a process of its own, as root or as somebody else.
type launcher struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// ordinary is the user of the tests that are about one; nil: as we are.
type ordinary = *syscall.Credential

func startLauncher(t *testing.T, j job, as ordinary) *launcher {
	t.Helper()
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testFiles(t).self)
	cmd.Dir = "/"
	cmd.Env = []string{helperEnv + "=" + string(b)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if as != nil {
		if err := os.Chown(j.Base, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &launcher{cmd: cmd, lines: bufio.NewScanner(out)}
}

// until reads events up to a text; it returns all texts.
func (l *launcher) until(t *testing.T, text string) []string {
	t.Helper()
	var said []string
	for l.lines.Scan() {
		var e request.Event
		if err := json.Unmarshal(l.lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if said = append(said, e.Text); e.Text == text {
			return said
		}
	}
	t.Fatalf("never heard %q, only %q", text, said)
	return nil
}

// outcome reads to the end.
func (l *launcher) outcome(t *testing.T) (outcome, []string) {
	t.Helper()
	var said []string
	var last []byte
	for l.lines.Scan() {
		if last != nil {
			var e request.Event
			if err := json.Unmarshal(last, &e); err != nil {
				t.Fatal(err)
			}
			said = append(said, e.Text)
		}
		last = slices.Clone(l.lines.Bytes())
	}
	var o outcome
	if err := json.Unmarshal(last, &o); err != nil {
		t.Fatalf("outcome %q: %v", last, err)
	}
	if err := l.cmd.Wait(); err != nil {
		t.Error(err)
	}
	return o, said
}

// someone makes an ordinary user without subordinate ids, for this test alone.
func someone(t *testing.T) ordinary {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil // that is what we are
	}
	name := "sbt" + strconv.Itoa(os.Getpid())
	if _, err := user.Lookup(name); err != nil {
		if out, err := exec.Command("useradd", "--no-create-home", "--no-user-group", name).CombinedOutput(); err != nil {
			t.Fatalf("useradd: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("userdel", "-f", name).CombinedOutput(); err != nil {
				t.Errorf("userdel: %v: %s", err, out)
			}
		})
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}
}

// Everything works the same for an ordinary user, but that the context is read
// with his rights.
func TestOrdinaryUser(t *testing.T) {
	as := someone(t)
	j := newJob(t, "tour")
	j.Quota = 100 << 20
	if err := os.Mkdir(filepath.Join(j.Base, "ctx"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.Base, "ctx", "secret"), []byte("for root alone"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, said := startLauncher(t, j, as).outcome(t)
	if o.Err != "" {
		t.Fatalf("%s\n%+v", o.Err, o.Wall)
	}
	t.Log("took", o.Took)
	got, want := byName(said), map[string]string{}
	for k, v := range wantTour {
		want[k] = v
	}
	if as != nil {
		want["secret"] = " open /context/secret: permission denied"
	}
	for _, varies := range []string{"dns", "/etc/ssl/certs/ca-certificates.crt", "list /proc/self/fd"} {
		delete(got, varies)
		delete(want, varies)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestOrdinaryUserOutputs(t *testing.T) {
	as := someone(t)
	j := newJob(t, "layout")
	j.Layout = filepath.Join(j.Base, "out", "image")
	if o, _ := startLauncher(t, j, as).outcome(t); o.Err != "" {
		t.Fatal(o.Err)
	}
	checkLayout(t, j.Layout)
}

// SIGTERM and Ctrl-C for both kinds of user, in a launcher of its own.
func TestSignals(t *testing.T) {
	for _, as := range []ordinary{nil, someone(t)} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			j := newJob(t, "deaf")
			l := startLauncher(t, j, as)
			l.until(t, "waiting")
			start := time.Now()
			// The whole group, as a terminal does it.
			if err := syscall.Kill(-l.cmd.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
			o, _ := l.outcome(t)
			took := time.Since(start)
			t.Logf("user %v: %v after %v", as, o.Err, took)
			if took > soon || !strings.Contains(o.Err, "signal") && !strings.Contains(o.Err, "canceled") {
				t.Errorf("%v, error %q", took, o.Err)
			}
			nothingLeft(t, j.Base)
		}
	}
}

// kill -9 of the launcher takes the sandbox with it; what remains is the
// store and small files, and the next start sweeps it, its outputs included.
func TestKilledLauncher(t *testing.T) {
	for _, as := range []ordinary{nil, someone(t)} {
		for _, act := range []string{"deaf", "layout hang"} {
			j := newJob(t, act)
			if act != "deaf" {
				j.Layout = filepath.Join(j.Base, "out", "layout")
			}
			l := startLauncher(t, j, as)
			l.until(t, "waiting")
			if n := len(processesOf(t, j.Base)); n < 3 {
				t.Errorf("only %d processes seen while it runs", n)
			}
			if err := l.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			l.cmd.Wait()
			start := time.Now()
			left := func() []string {
				p := processesOf(t, j.Base)
				if as != nil { // gVisor's stubs do not name the directory
					p = append(p, ownedBy(t, as.Uid)...)
				}
				return p
			}
			for len(left()) > 0 && time.Since(start) < soon {
				time.Sleep(time.Millisecond)
			}
			t.Logf("user %v, %s: processes gone after %v", as, act, time.Since(start))
			if p := left(); len(p) > 0 {
				t.Errorf("processes are left: %q", p)
			}
			// The blobs that came, 6 MiB, lie there until the next start.
			if size := diskUse(t, filepath.Join(j.Base, "w")); size > 8<<20 {
				t.Errorf("%d bytes are left on disk", size)
			}
			next := j
			next.Act, next.Layout = "ok", ""
			if o, _ := startLauncher(t, next, as).outcome(t); o.Err != "" {
				t.Error(o.Err)
			}
			if _, err := os.Stat(filepath.Join(j.Base, "out")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the output's directory is left: %v", err)
			}
			nothingLeft(t, j.Base)
		}
	}
}

// ownedBy lists all processes of a user, whatever they are called.
func ownedBy(t *testing.T, uid uint32) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		s, err := readStatus(f)
		if err == nil && strings.HasPrefix(s["Uid"], fmt.Sprint(uid, "\t")) && !strings.HasPrefix(s["State"], "Z") {
			found = append(found, s["Name"]+" "+s["Pid"])
		}
	}
	return found
}

// diskUse is what du would say.
func diskUse(t *testing.T, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return sum
}

// kill -9 at any time of the start leaves nothing that the next start does not
// sweep.
func TestKilledWhileStarting(t *testing.T) {
	as := someone(t)
	j := newJob(t, "deaf")
	for ms := 2; ms < 400; ms = ms*3/2 + 1 {
		l := startLauncher(t, j, as)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		l.cmd.Process.Kill()
		l.cmd.Wait()
	}
	ageNew(t, filepath.Join(j.Base, "w"))
	j.Act = "ok"
	if o, _ := startLauncher(t, j, as).outcome(t); o.Err != "" {
		t.Error(o.Err)
	}
}

// ageNew makes directories look old whose launcher died before it had its lock.
func ageNew(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * staleNew)
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(dir, e.Name()), old, old); err != nil {
			t.Error(err)
		}
	}
}

// A sandbox that something else kills is told so, and swept up.
func TestSentryKilled(t *testing.T) {
	j := newJob(t, "deaf")
	l := startLauncher(t, j, nil)
	l.until(t, "waiting")
	if out, err := exec.Command("pkill", "-KILL", "-f", "runsc-sandbox .*"+j.Base).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o, _ := l.outcome(t)
	if o.End == nil || !strings.Contains(o.End.Hint, "out of memory") {
		t.Errorf("outcome %+v", o)
	}
}

// What this machine forbids is named.
func TestForbidden(t *testing.T) {
	as := someone(t)
	for _, tt := range []struct {
		name string
		nr   int
		as   ordinary
		wall string
	}{
		{"ptrace, root", unix.SYS_PTRACE, nil, "ptrace"},
		{"ptrace, user", unix.SYS_PTRACE, as, "ptrace"},
		{"user namespace, root", unix.SYS_UNSHARE, nil, "user namespace"},
		{"user namespace, user", unix.SYS_UNSHARE, as, "user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, "ok")
			j.DenyNum = tt.nr
			o, _ := startLauncher(t, j, tt.as).outcome(t)
			t.Logf("after %v: %s\n%+v", o.Took, o.Err, o.Wall)
			if o.Wall == nil || o.Wall.Wall != tt.wall || !strings.Contains(o.Wall.Hint, "doctor") {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

// The workspace is on disk: what is written there is not memory of the sentry.
func TestWorkspaceIsNotMemory(t *testing.T) {
	j := newJob(t, "deaf")
	j.Act = "hold 1024"
	l := startLauncher(t, j, nil)
	l.until(t, "waiting")
	out, err := exec.Command("pgrep", "-f", "runsc-sandbox .*"+j.Base).Output()
	if err != nil {
		t.Fatal(err)
	}
	status, err := readStatus(fmt.Sprintf("/proc/%s/status", strings.Fields(string(out))[0]))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	for _, f := range []string{"RssAnon", "RssShmem"} {
		n, err := strconv.Atoi(strings.TrimSuffix(status[f], " kB"))
		if err != nil {
			t.Fatal(err)
		}
		t.Log(f, status[f])
		kib += n
	}
	if kib > 100<<10 {
		t.Errorf("%d KiB of memory for 1 GiB of files", kib)
	}
	l.cmd.Process.Signal(syscall.SIGTERM)
	l.outcome(t)
}

// Root of a container that was started without CAP_SYS_ADMIN is treated as an
// ordinary user.
func TestRootWithoutAdmin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs to start as root, to drop it")
	}
	j := newJob(t, "ok")
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", testFiles(t).self)
	cmd.Env = append(os.Environ(), helperEnv+"="+string(b))
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), `"Err":""`) {
		t.Errorf("%v: %s", err, out)
	}
}
