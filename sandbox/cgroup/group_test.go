package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests are real: they need root and a kernel with the controllers, of
// either version. Where there are none they are skipped and say so.

func TestMain(m *testing.M) {
	if name := os.Getenv("CGROUP_TEST_NAME"); name != "" {
		os.Exit(child(name))
	}
	os.Exit(m.Run())
}

// all is a limit of each kind.
func all() Limits { return Limits{Memory: 64 << 20, CPUQuota: 50000, CPUShares: 512, Tasks: 40} }

// need skips the test where this machine has no such groups.
func need(t *testing.T) []hierarchy {
	t.Helper()
	list, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	switch lack := grouped(list, all().controllers())[len(list)]; {
	case os.Geteuid() != 0:
		t.Skip("not root: no control group can be made for the test")
	case len(lack) > 0:
		t.Skipf("this machine has no controller for %s", lack)
	}
	var used []hierarchy
	for i, c := range grouped(list, all().controllers())[:len(list)] {
		if c != nil {
			used = append(used, list[i])
		}
	}
	return used
}

// start starts a program in a group, as the launcher does.
func start(t *testing.T, g *Group, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := startIn(g, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func startIn(g *Group, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(args[0], args[1:]...)
	if uid := os.Geteuid(); uid != 0 { // as the launcher starts gVisor then
		own := []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: own, GidMappings: own}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, err
	}
	detach, err := g.Attach(cmd)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cmd.Start(), detach()); err != nil {
		return nil, err
	}
	if after, err := os.ReadFile("/proc/thread-self/cgroup"); err != nil || string(after) != string(before) {
		return nil, fmt.Errorf("the thread is still in the group: %s", after)
	}
	return cmd, nil
}

// newGroup makes a group and sees to its end.
func newGroup(t *testing.T, l Limits) *Group {
	t.Helper()
	g, err := Make(Want{Limits: l, Name: "kbuild-sandbox-test-" + strconv.Itoa(os.Getpid()), Record: filepath.Join(t.TempDir(), "record")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove10(t, g) })
	return g
}

func remove10(t *testing.T, g *Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// A group has its limits, a process is in it from its first moment, and with the
// group goes everything that is in it.
func TestGroup(t *testing.T) {
	need(t)
	g := newGroup(t, all())
	cmd := start(t, g, "sleep", "100")
	if err := g.Verify([]int{cmd.Process.Pid}); err != nil {
		t.Error(err)
	}
	if err := g.Verify([]int{cmd.Process.Pid, os.Getpid()}); err == nil {
		t.Error("a process outside is not found")
	}
	n := 0
	for _, d := range g.dirs {
		n += len(d.settings)
		s := d.settings[0]
		if err := write(d.path, s.file, "123456789"); err == nil && g.Verify(nil) == nil {
			t.Errorf("%s is another, and that is not found", s.file)
		}
		if err := write(d.path, s.file, s.value); err != nil {
			t.Error(err)
		}
	}
	if n < 4 {
		t.Errorf("%d settings", n)
	}
	if err := g.Verify(nil); err != nil {
		t.Error(err)
	}
	var dirs []string
	for _, d := range g.dirs {
		dirs = append(dirs, d.path)
	}
	remove10(t, g)
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v", err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}

// Who needs too much memory is killed, and that is counted.
func TestOutOfMemory(t *testing.T) {
	need(t)
	g := newGroup(t, Limits{Memory: 32 << 20, MemorySwap: 32 << 20})
	cmd := start(t, g, "tail", "/dev/zero")
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
	if c := g.Counts(); c.OOMKills == 0 || c.Tasks != 0 {
		t.Errorf("counted: %+v", c)
	}
}

// Who starts too many processes gets no more, and that is counted.
func TestOutOfTasks(t *testing.T) {
	need(t)
	g := newGroup(t, Limits{Tasks: 20})
	cmd := start(t, g, "sh", "-c", "i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done")
	_ = cmd.Wait() // it may fail
	if c := g.Counts(); c.Tasks == 0 || c.OOMKills != 0 {
		t.Errorf("counted: %+v", c)
	}
	for _, d := range g.dirs {
		now, err := words(d.path, "pids.current")
		if n, e := strconv.Atoi(strings.Join(now, "")); err != nil || e != nil || n < 10 || n > 20 {
			t.Errorf("%v tasks: %v", now, err)
		}
	}
}

// After the end of the launcher another one removes what the record names, if
// it is a group of that name.
func TestRemoveRecorded(t *testing.T) {
	list := need(t)
	ctx := t.Context()
	dir := t.TempDir()
	name := "kbuild-sandbox-test-dead"
	file := filepath.Join(dir, "record")
	g, err := Make(Want{Limits: all(), Name: name, Record: file})
	if err != nil {
		t.Fatal(err)
	}
	cmd := start(t, g, "sleep", "100")
	other := filepath.Join(list[0].own, "kbuild-sandbox-test-other")
	plain := filepath.Join(dir, name)
	for _, d := range []string{other, plain} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d)
	}
	for _, d := range []string{other, plain} {
		if err := record(file, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveRecorded(ctx, file, name); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	for _, d := range g.dirs {
		if _, err := os.Stat(d.path); err == nil {
			t.Errorf("%s is left", d.path)
		}
	}
	for _, d := range []string{other, plain} {
		if _, err := os.Stat(d); err != nil {
			t.Errorf("what is not ours is gone: %v", err)
		}
	}
	if err := RemoveRecorded(ctx, filepath.Join(dir, "none"), name); err != nil {
		t.Error(err)
	}
}

// Limits that the kernel cannot take are errors that name them.
func TestCannot(t *testing.T) {
	need(t)
	for name, w := range map[string]Want{
		"pids.max":                       {Limits: Limits{Tasks: 1 << 40}, Name: "kbuild-sandbox-test-cannot"},
		"the parent that was named":      {Limits: all(), Name: "kbuild-sandbox-test-cannot", Parent: "/kbuild-sandbox-none"},
		"no group can be made below":     {Limits: all(), Name: "no/such/place"},
		"memory.swap.max|memsw.limit_in": {Limits: Limits{Memory: 64 << 20, MemorySwap: 1}, Name: "kbuild-sandbox-test-cannot"},
	} {
		g, err := Make(w)
		if err == nil {
			remove10(t, g)
			t.Errorf("%s: no error", name)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || !slices.ContainsFunc(strings.Split(name, "|"), func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list := need(t)
	for _, h := range list {
		if left, _ := filepath.Glob(h.own + "/kbuild-sandbox-test-cannot"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// report is what a child process found.
type report struct {
	Err, Hint string
	Path      []string // of its groups
	Own       []string // its own groups before and after
}

// child makes a group as the launcher of somebody else does, and tells about it.
func child(name string) int {
	var r report
	own := func() string {
		b, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	r.Own = append(r.Own, own())
	err := func() error {
		g, err := Make(Want{Limits: all(), Name: name})
		if err != nil {
			return err
		}
		defer func() { _ = g.Remove(context.Background()) }()
		for _, d := range g.dirs {
			r.Path = append(r.Path, d.path)
		}
		cmd, err := startIn(g, "sleep", "100")
		if err != nil {
			return err
		}
		if err := g.Verify([]int{cmd.Process.Pid}); err != nil {
			return err
		}
		err = g.Remove(context.Background())
		_ = cmd.Wait()
		return err
	}()
	if err != nil {
		r.Err = err.Error()
		if e := new(Error); errors.As(err, &e) {
			r.Hint = e.Hint
		}
	}
	r.Own = append(r.Own, own())
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

// delegate makes a group below the test's own in each hierarchy, gives it to a
// user, and removes it in the end. It returns the directories.
func delegate(t *testing.T, list []hierarchy, uid int) []string {
	t.Helper()
	var dirs []string
	for _, h := range list {
		if h.v2 {
			if _, err := handDown(h.own, all().controllers()); err != nil {
				t.Skipf("this test's own group hands down nothing: %v", err)
			}
		}
		dir := filepath.Join(h.own, "kbuild-sandbox-test-delegated")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := remove(context.Background(), dir); err != nil {
				t.Error(err)
			}
		})
		for _, f := range []string{"", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(dir, f), uid, uid); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// play runs this program as child in groups, as a user.
func play(t *testing.T, dirs []string, list []hierarchy, uid int) (r report) {
	t.Helper()
	// The test's own file lies where only root can read.
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "cgroup-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(self, exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	g := &Group{}
	for i, d := range dirs {
		entry := directory{hierarchy: list[i], path: d}
		if list[i].v2 {
			f, err := os.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			entry.fd = f
		}
		g.dirs = append(g.dirs, entry)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{"CGROUP_TEST_NAME=kbuild-sandbox-test-child", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	runtime.LockOSThread()
	detach, err := g.Attach(cmd)
	if err == nil {
		err = errors.Join(cmd.Start(), detach())
	}
	runtime.UnlockOSThread()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	if r.Own[0] != r.Own[1] {
		t.Errorf("its own groups changed from\n%s to\n%s", r.Own[0], r.Own[1])
	}
	return r
}

// An ordinary user gets limits in a group that was delegated to him, and his
// own group is afterwards what it was.
func TestDelegated(t *testing.T) {
	list := need(t)
	const uid = 4321
	dirs := delegate(t, list, uid)
	r := play(t, dirs, list, uid)
	if r.Err != "" {
		t.Fatal(r.Err)
	}
	for i, d := range dirs {
		if filepath.Dir(r.Path[i]) != d {
			t.Errorf("made %s, not in %s", r.Path[i], d)
		}
		if left, _ := filepath.Glob(d + "/kbuild*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if words, err := words(d, "cgroup.subtree_control"); err == nil && len(words) > 0 {
			t.Errorf("%s still hands down %v", d, words)
		}
	}
}

// Without a group of his own he gets an error that says what to do.
func TestNotDelegated(t *testing.T) {
	list := need(t)
	dirs := delegate(t, list, 0)
	r := play(t, dirs, list, 4321)
	if !strings.Contains(r.Err, "no group can be made below") || !strings.Contains(r.Hint, "systemd-run --user --scope") {
		t.Errorf("%q, hint %q", r.Err, r.Hint)
	}
}

// Beside others in a group of v2 root's build goes above it, but not out of a
// limit.
func TestAbove(t *testing.T) {
	list := need(t)
	if !slices.ContainsFunc(list, func(h hierarchy) bool { return h.v2 }) {
		t.Skip("v1 has no such rule")
	}
	dirs := delegate(t, list, 0)
	d := directory{hierarchy: list[0], path: dirs[0]}
	f, err := os.Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.fd = f
	start(t, &Group{dirs: []directory{d}}, "sleep", "100")
	r := play(t, dirs, list, 0)
	if r.Err != "" || filepath.Dir(r.Path[0]) != list[0].own {
		t.Errorf("made %v, error %q", r.Path, r.Err)
	}
	if err := write(dirs[0], "pids.max", "1000"); err != nil {
		t.Fatal(err)
	}
	r = play(t, dirs, list, 0)
	if !strings.Contains(r.Err, "has a limit (pids.max)") {
		t.Errorf("made %v, error %q", r.Path, r.Err)
	}
}
