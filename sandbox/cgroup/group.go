package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Error says what is missing for a limit.
type Error struct {
	Msg  string
	Hint string // what to do about it, or ""
	Err  error  // the cause, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Group is the group of one build.
type Group struct {
	dirs []directory
}

// directory is the group in one hierarchy.
type directory struct {
	hierarchy
	path     string
	settings []setting
	fd       *os.File // v2: the directory, for clone3
	leaf     string   // v2: the group that the launcher moved into, or ""
	enabled  []string // what its old group hands down since
}

// Want is a group that is wanted.
type Want struct {
	Limits
	// Name is the name of the group; it must be nobody else's.
	Name string
	// Parent is the group to make it below, from the top of every hierarchy;
	// empty: see the package.
	Parent string
	// Record is a file that is to have the group's directories before they are
	// made, so that RemoveRecorded can remove them after a crash; empty: none.
	Record string
}

// Make makes a group and sets its limits. The error is an *Error where this
// machine does not let them be had.
func Make(w Want) (_ *Group, err error) {
	list, err := hierarchies()
	if err != nil {
		return nil, err
	}
	g := &Group{}
	defer func() {
		if err != nil {
			_ = g.Remove(context.Background()) // what is left has no process in it
		}
	}()
	for i, need := range grouped(list, w.controllers()) {
		if need == nil {
			continue
		}
		if i == len(list) {
			return nil, &Error{Msg: "this machine has no controller for " + strings.Join(need, ", "), Hint: hintNone}
		}
		d := directory{hierarchy: list[i]}
		parent, err := d.parent(w.Parent, need)
		g.dirs = append(g.dirs, d)
		if err != nil {
			return nil, err
		}
		if err := g.last().make(parent, w, need); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (g *Group) last() *directory { return &g.dirs[len(g.dirs)-1] }

// grouped sorts the needed controllers by hierarchy; those of none come last.
func grouped(list []hierarchy, need []string) [][]string {
	out := make([][]string, len(list)+1)
	for _, c := range need {
		i := len(list)
		if h := having(list, c); h != nil {
			i = slices.IndexFunc(list, func(o hierarchy) bool { return o.top == h.top })
		}
		out[i] = append(out[i], c)
	}
	return out
}

// parent finds the group to make this one below.
func (d *directory) parent(named string, need []string) (string, error) {
	switch {
	case named != "":
		dir := filepath.Join(d.top, named)
		if _, err := os.Stat(dir); err != nil {
			return "", &Error{Msg: "the parent that was named is not there", Err: err, Hint: "make it first, writable for this user"}
		}
		if !d.v2 {
			return dir, nil
		}
		if _, err := handDown(dir, need); err != nil {
			return "", noParent(dir, err)
		}
		return dir, nil
	case d.v2:
		return d.parentV2(need)
	}
	return d.own, nil
}

// make makes the group and sets its limits.
func (d *directory) make(parent string, w Want, need []string) error {
	path := filepath.Join(parent, w.Name)
	if err := record(w.Record, path); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return noParent(parent, err)
	}
	d.path = path
	for _, s := range w.settings(d.v2) {
		if !slices.Contains(need, s.controller) {
			continue
		}
		err := write(path, s.file, s.value)
		if s.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return &Error{Msg: fmt.Sprintf("%s cannot be set to %s", s.file, s.value), Err: err, Hint: hintDelegate()}
		}
		d.settings = append(d.settings, s)
	}
	if !d.v2 {
		return nil
	}
	// Who puts a process into another group must be allowed to write to the one
	// above both, too.
	above := common(d.own, path)
	if err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(above, "cgroup.procs"), unix.W_OK, unix.AT_EACCESS); err != nil {
		return &Error{Msg: "processes cannot be moved below " + above, Err: err, Hint: hintDelegate()}
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open cgroup: %w", err)
	}
	d.fd = f
	return nil
}

// common is the deepest directory above both.
func common(a, b string) string {
	for b != a && !strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/") {
		b = filepath.Dir(b)
	}
	return b
}

// record adds a line to the file that RemoveRecorded reads.
func record(file, path string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("record cgroup: %w", err)
	}
	_, err = f.WriteString(path + "\n")
	return errors.Join(err, f.Close())
}

// Attach makes cmd start in the group. It must be called on the thread that
// starts cmd, locked to it, and detach after the start on the same one; until
// then the thread itself is in the groups of v1.
func (g *Group) Attach(cmd *exec.Cmd) (detach func() error, err error) {
	var entered []directory
	detach = func() error {
		var errs []error
		for _, d := range entered {
			errs = append(errs, enterThread(d.own))
		}
		return errors.Join(errs...)
	}
	for _, d := range g.dirs {
		if d.v2 {
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(d.fd.Fd())
			continue
		}
		if err := enterThread(d.path); err != nil {
			return nil, errors.Join(&Error{Msg: "processes cannot be put into " + d.path, Err: err, Hint: hintDelegate()}, detach())
		}
		entered = append(entered, d)
	}
	return detach, nil
}

// enterThread puts the calling thread into a group of v1.
func enterThread(dir string) error { return write(dir, "tasks", strconv.Itoa(unix.Gettid())) }

// Verify checks that each process is in the group and that the limits are set.
func (g *Group) Verify(pids []int) error {
	for _, d := range g.dirs {
		in, err := words(d.path, "cgroup.procs")
		if err != nil {
			return &Error{Msg: "the build's group cannot be read", Err: err}
		}
		for _, pid := range pids {
			if !slices.Contains(in, strconv.Itoa(pid)) {
				return &Error{Msg: fmt.Sprintf("process %d is not in %s", pid, d.path)}
			}
		}
		for _, s := range d.settings {
			b, err := os.ReadFile(filepath.Join(d.path, s.file))
			if err != nil {
				return &Error{Msg: "a limit cannot be read", Err: err}
			}
			if !s.holds(string(b)) {
				return &Error{Msg: fmt.Sprintf("%s is %.80q instead of %s", s.file, strings.TrimSpace(string(b)), s.value)}
			}
		}
	}
	return nil
}

// Counts are how often limits were reached.
type Counts struct {
	OOMKills int64 // processes that the kernel ended for want of memory
	Tasks    int64 // starts of processes and threads that were refused
}

// Counts reads them. What cannot be read counts as never.
func (g *Group) Counts() (c Counts) {
	for _, d := range g.dirs {
		if d.path == "" {
			continue
		}
		events := "memory.oom_control"
		if d.v2 {
			events = "memory.events"
		}
		c.OOMKills += value(d.path, events, "oom_kill")
		c.Tasks += value(d.path, "pids.events", "max")
	}
	return c
}

// value reads a number of a file with lines of name and number.
func value(dir, file, name string) int64 {
	f, err := words(dir, file)
	if err != nil {
		return 0 // the controller is not this hierarchy's
	}
	for i := 0; i+1 < len(f); i += 2 {
		if f[i] == name {
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// Remove ends whatever is in the group, removes it, and takes back what was
// changed for it.
func (g *Group) Remove(ctx context.Context) error {
	var errs []error
	for i := range g.dirs {
		d := &g.dirs[i]
		if d.fd != nil {
			d.fd.Close()
			d.fd = nil
		}
		if d.path != "" {
			errs = append(errs, remove(ctx, d.path))
		}
		errs = append(errs, d.moveBack())
	}
	g.dirs = nil
	return errors.Join(errs...)
}

// remove kills what is in a group until it can be removed.
func remove(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		kill(dir)
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup: %w", err)
		case <-time.After(pause):
		}
	}
}

// kill ends every process in a group. An error means that it is gone, or shows
// in that the group stays.
func kill(dir string) {
	if write(dir, "cgroup.kill", "1") == nil {
		return
	}
	list, err := words(dir, "cgroup.procs")
	if err != nil {
		return
	}
	for _, p := range list {
		pid, err := strconv.Atoi(p)
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// The number may have been taken again since it was read.
		if again, err := words(dir, "cgroup.procs"); err == nil && slices.Contains(again, p) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// RemoveRecorded removes the groups of a build whose launcher is gone: those
// that stand in the file, if they have the name that Make was given.
func RemoveRecorded(ctx context.Context, file, name string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read record of cgroups: %w", err)
	}
	var errs []error
	for path := range strings.Lines(string(b)) {
		path = strings.TrimSuffix(path, "\n")
		if filepath.Base(path) == name && isGroup(path) {
			errs = append(errs, remove(ctx, path))
		}
	}
	return errors.Join(errs...)
}

// isGroup tells whether a directory is a cgroup.
func isGroup(dir string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return err == nil && (st.Type == unix.CGROUP_SUPER_MAGIC || st.Type == unix.CGROUP2_SUPER_MAGIC)
}
