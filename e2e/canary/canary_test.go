package canary

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var builds = flag.Int("builds", 2, "builds by each user")

const nobody = 65534

// TestCanaries builds with credentials that nobody else has, as root and as an
// ordinary user.
func TestCanaries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("reads the memory of other users' processes: run as root")
	}
	bin := binaries(t)
	for n := range *builds {
		for _, uid := range []int{0, nobody} {
			t.Run(fmt.Sprintf("%d-uid-%d", n+1, uid), func(t *testing.T) {
				r := newRig(t, uid, n)
				r.afterwards(t, r.watch(t, bin, uid, r.args(n)))
			})
		}
	}
}

func binaries(t testing.TB) string {
	t.Helper()
	bin := os.Getenv("KBUILD_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "kbuild-sandbox")); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return bin
}

// build is a build at work.
type build struct {
	pid    int
	log    string // file
	stdout string // file
	ended  chan struct{}
	err    error
}

func (r *Rig) start(t testing.TB, bin string, uid int, args []string) *build {
	t.Helper()
	b := &build{log: r.path("out/log"), stdout: r.path("out/stdout"), ended: make(chan struct{})}
	cmd := exec.Command(filepath.Join(bin, "kbuild-sandbox"), args...)
	cmd.Dir = r.Dir
	cmd.Env = []string{"PATH=" + r.path("bin") + ":" + os.Getenv("PATH"), "HOME=" + r.path("home"), "TMPDIR=" + r.path("tmp")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	stderr, err := os.Create(b.log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	stdout, err := os.Create(b.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread
		defer close(b.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			b.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	b.pid = cmd.Process.Pid
	t.Cleanup(func() {
		select {
		case <-b.ended:
		default:
			_ = syscall.Kill(b.pid, syscall.SIGTERM)
			<-b.ended
		}
	})
	return b
}

// patience is how long a build may take to the next place where it is held.
const patience = 3 * time.Minute

// until waits for one of several things, and returns which it was. The end of
// the build is none that is waited for.
func (b *build) until(t testing.TB, what string, things ...<-chan struct{}) int {
	t.Helper()
	end := time.After(patience)
	for {
		for i, c := range things {
			select {
			case <-c:
				return i
			case <-b.ended:
				t.Fatalf("the build has ended before %s: %v\n%s", what, b.err, b.told(t))
			case <-end:
				t.Fatalf("the build does not come to %s\n%s", what, b.told(t))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// told is the log so far, with what is base64 in JSON lines behind it.
func (b *build) told(t testing.TB) string {
	text, err := os.ReadFile(b.log)
	if err != nil {
		t.Error(err)
		return ""
	}
	out := bytes.NewBuffer(text)
	for line := range bytes.Lines(text) {
		var e struct{ Data []byte }
		if json.Unmarshal(line, &e) == nil {
			out.Write(e.Data)
		}
	}
	return out.String()
}

// watch holds the build while each of its sandboxes works, and looks into all
// that it has.
func (r *Rig) watch(t *testing.T, bin string, uid int, args []string) *build {
	byPassword, byToken := r.from.Hold("GET", "/blobs/"), r.tokens.Hold("GET", "/blobs/")
	step, pushing := r.step.Hold("GET", "/stands"), r.to.Hold("PUT", "/manifests/")
	b := r.start(t, bin, uid, args)
	w := &watcher{Rig: r, build: b, found: map[string]Hits{}}

	arrived := []<-chan struct{}{byPassword.Arrived, byToken.Arrived}
	held := []*Held{byPassword, byToken}
	for range held {
		i := b.until(t, "the pull of the base images", arrived...)
		w.look(t, fmt.Sprintf("while base image %d is pulled", i+1), "fetch")
		held[i].Release()
		arrived[i] = nil
	}
	b.until(t, "the step", step.Arrived)
	w.look(t, "while a step runs", "build")
	step.Release()
	b.until(t, "the push", pushing.Arrived)
	w.look(t, "while the image is pushed", "push")
	pushing.Release()
	select {
	case <-b.ended:
	case <-time.After(patience):
		t.Fatalf("the build does not end\n%s", b.told(t))
	}
	if b.err != nil {
		t.Fatalf("the build failed: %v\n%s", b.err, b.told(t))
	}
	w.controls(t)
	return b
}

// may are the canaries that a sandbox may have, and that have to be found in it.
func (r *Rig) may(role string) []string {
	switch role {
	case "fetch":
		return []string{r.Pull.Name, r.Identity.Name, r.Bearer.Name}
	case "build":
		return []string{r.Secret.Name, r.Word.Name}
	case "push", helper: // the helper is asked for it
		return []string{r.Push.Name}
	}
	return nil
}

// watcher collects what is found in the processes of one build.
type watcher struct {
	*Rig
	*build
	found map[string]Hits // by role
}

// look looks into every process that the build has started, and into the files
// of its work directory. role is the sandbox that is at work.
func (w *watcher) look(t *testing.T, when, role string) {
	t.Helper()
	processes, err := Descendants(w.pid)
	if err != nil {
		t.Fatal(err)
	}
	look, read, count := NewLook(w.Search), map[string]int64{}, map[string]int{}
	for _, p := range processes {
		hits, n, err := look.At(p)
		if err != nil {
			t.Errorf("%s: %v: %v", when, err, p.Command)
		}
		of := roleOf(p, processes)
		read[of] += n
		count[of]++
		if w.found[of] == nil {
			w.found[of] = Hits{}
		}
		w.found[of].Add(hits)
		for _, name := range hits.names() {
			if name != w.Word.Name && !slices.Contains(w.may(of), name) {
				t.Errorf("%s: the %s has the %s: %s: process %d %.200q", when, of, name, strings.Join(hits.Of(name), ", "), p.PID, p.Command)
			}
		}
	}
	const least = 8 << 20 // of a sandbox, without what others have too
	if read[role] < least {
		t.Errorf("%s: only %d bytes of the %s sandbox were read", when, read[role], role)
	}
	for of := range read {
		t.Logf("%s: %s: %d processes, %d MB read", when, of, count[of], read[of]>>20)
	}
	if hits, _, err := NewLook(w.Search).words(Process{PID: w.pid}); err != nil || len(hits) > 0 {
		t.Errorf("%s: in the launcher's arguments and environment: %s, %v", when, hits, err)
	}
	w.tree(t, when, w.path("tmp"), true)
}

// tree looks into files where no credential and no secret may be.
func (w *watcher) tree(t *testing.T, when, dir string, atWork bool) {
	t.Helper()
	found, files, err := w.Search.Tree(dir, atWork)
	if err != nil {
		t.Errorf("%s: %v", when, err)
	}
	t.Logf("%s: %d files in %s", when, files, filepath.Base(dir))
	for path, hits := range found {
		for _, name := range hits.names() {
			if name != w.Word.Name {
				t.Errorf("%s: %s has the %s: %s", when, path, name, strings.Join(hits.Of(name), ", "))
			}
		}
	}
}

// roleOf is the role of the sandbox that a process belongs to: the nearest of it
// and its ancestors that names it. Without roles all are one sandbox.
func roleOf(p Process, all []Process) string {
	for {
		for _, arg := range p.Command {
			for role, end := range map[string]string{"fetch": "/f/r", "build": "/b/r", "push": "/p/r", helper: "/" + helper} {
				if strings.HasSuffix(arg, end) {
					return role
				}
			}
		}
		i := slices.IndexFunc(all, func(q Process) bool { return q.PID == p.Parent })
		if i < 0 {
			return "launcher's child"
		}
		p = all[i]
	}
}

// controls: what a sandbox works with was found in it.
func (w *watcher) controls(t *testing.T) {
	t.Helper()
	for _, role := range []string{"fetch", "build", "push"} {
		for _, name := range w.may(role) {
			if forms := w.found[role].Of(name); len(forms) == 0 {
				t.Errorf("the %s was not found in the %s sandbox: the search proves nothing", name, role)
			} else {
				t.Logf("control: the %s is in the %s sandbox: %s", name, role, strings.Join(forms, ", "))
			}
		}
	}
}

// afterwards looks into everything that the build has left: image, layout,
// reports, logs, caches, and what the registry has.
func (r *Rig) afterwards(t *testing.T, b *build) {
	w := &watcher{Rig: r, build: b}
	for _, name := range append(r.Written, "out/cache") {
		if files, err := filepath.Glob(r.path(name)); err != nil || len(files) == 0 {
			t.Errorf("the build has not written %s: %v", name, err)
		}
	}
	for _, dir := range append([]string{r.path("out"), r.path("tmp"), r.path("context")}, r.Stores...) {
		w.tree(t, "afterwards", dir, false)
	}
	for _, place := range append([]string{r.path("out/layout"), r.path("out/log")}, r.Stores...) {
		found, _, err := r.Search.Tree(place, false)
		if err != nil {
			t.Error(err)
		}
		all := Hits{}
		for _, hits := range found {
			all.Add(hits)
		}
		if len(all.Of(r.Word.Name)) == 0 {
			t.Errorf("the %s was not found in %s: the search proves nothing", r.Word.Name, place)
		}
	}
	if !strings.Contains(b.told(t), "secret: ***") {
		t.Errorf("the secret is not masked in the log:\n%s", b.told(t))
	}
}
