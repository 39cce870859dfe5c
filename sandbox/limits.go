package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/cgroup"
)

// Limits are what the host's kernel holds all sandboxes of a run to, together.
// Those of Request.Limits the executor keeps; of its PIDs the kernel keeps what
// they come to outside.
type Limits struct {
	cgroup.Limits
	// Parent is the control group to make the run's below, from the top of the
	// hierarchy; empty: the launcher's own, or above it, see package cgroup.
	Parent string
}

// hostTasks is how many tasks of the host n processes of RUN steps may need:
// gVisor has two processes for each, and some threads of its own in each sandbox.
func hostTasks(n int64) int64 { return 4*n + 1024 }

// hold keeps a run within its limits from outside. A nil one holds nothing.
type hold struct {
	group  *cgroup.Group
	limits cgroup.Limits
}

// with are the limits with what those of the request come to outside.
func (l Limits) with(r request.Limits) cgroup.Limits {
	if r.PIDs > 0 {
		l.Tasks = hostTasks(r.PIDs)
	}
	return l.Limits
}

// TryLimits makes a control group for the limits and removes it again. The error
// is a *WallError if they cannot be had.
func TryLimits(l Limits, r request.Limits) error {
	limits := l.with(r)
	if limits.None() {
		return nil
	}
	name := dirPrefix + "try-" + strconv.Itoa(os.Getpid())
	group, err := cgroup.Make(cgroup.Want{Limits: limits, Name: name, Parent: l.Parent})
	if err != nil {
		return cgroupError(err)
	}
	return (&hold{group: group}).close(context.Background())
}

// openHold makes the control group of a run, where a limit needs one.
func openHold(c Config, l home) (*hold, error) {
	limits := c.Limits.with(c.Request.Limits)
	if limits.None() {
		return nil, nil
	}
	group, err := cgroup.Make(cgroup.Want{
		Limits: limits, Name: filepath.Base(l.dir), Parent: c.Limits.Parent, Record: filepath.Join(l.dir, recordName),
	})
	if err != nil {
		return nil, cgroupError(err)
	}
	return &hold{group, limits}, nil
}

// recordName lists the control groups of a run, one a line, so that a later start
// can remove them too.
const recordName = "cgroup"

// removeGroups removes the control groups of a run that is over.
func removeGroups(ctx context.Context, l home) error {
	return cgroup.RemoveRecorded(ctx, filepath.Join(l.dir, recordName), filepath.Base(l.dir))
}

func cgroupError(err error) *WallError {
	w := &WallError{Wall: "cgroup", Msg: "the limits that were asked for cannot be had", Err: err}
	if e := new(cgroup.Error); errors.As(err, &e) {
		w.Hint = e.Hint
	}
	return w
}

// attach makes cmd start within the limits, see cgroup.Group.Attach.
func (h *hold) attach(cmd *exec.Cmd) (detach func() error, err error) {
	if h == nil {
		return func() error { return nil }, nil
	}
	detach, err = h.group.Attach(cmd)
	if err != nil {
		return nil, cgroupError(err)
	}
	return detach, nil
}

// verify checks that all processes of a sandbox are held, and that the limits
// are set.
func (h *hold) verify(procs []runsc.Process) error {
	if h == nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		pids = append(pids, p.PID)
	}
	if err := h.group.Verify(pids); err != nil {
		return &WallError{Wall: "cgroup", Msg: "the limits are not in force", Err: err}
	}
	return nil
}

// blame puts a limit that was reached in the place of what it has led to: a RUN
// step or the sandbox that was killed.
func (h *hold) blame(res *request.Result, err error) bool {
	if h == nil || err == nil && res.Failure == nil {
		return false
	}
	count := h.group.Counts()
	f := request.Failure{}
	if res.Failure != nil {
		f = *res.Failure
	}
	switch {
	case count.OOMKills > 0:
		f.Message = fmt.Sprintf("out of memory: the limit of %d MiB was reached", h.limits.Memory>>20)
		f.Hint = "raise --memory"
	case count.Tasks > 0 && err != nil:
		f.Message = fmt.Sprintf("out of processes: the limit of %d for the sandboxes was reached", h.limits.Tasks)
		f.Hint = "raise --pids-limit"
	default:
		return false
	}
	f.Class, f.ExitCode = request.ClassResource, 0
	res.Failure = &f
	return true
}

// close ends what is left in the group and removes it.
func (h *hold) close(ctx context.Context) error {
	if h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goneIn)
	defer cancel()
	return h.group.Remove(ctx)
}

// limiter holds one run to its limits, from its beginning to its end.
type limiter struct {
	stop func()
	at   *watch
	hold *hold
	// results are how the roles ended.
	results map[request.Role]request.Result
}

// limited begins the time of a run, whose context it returns, and cuts what the
// sink gets to see.
func (c *Config) limited(ctx context.Context) (context.Context, *limiter) {
	r := c.Request.Limits
	cancel := func() {}
	if r.Timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, r.Timeout, &request.TimeoutError{Flag: request.TimeoutFlag, Limit: r.Timeout})
	}
	to := newPatient(ctx, c.Sink)
	l := &limiter{at: newWatch(request.NewClip(to, r, true)), stop: func() { to.close(); cancel() }}
	c.Sink = l.at
	return ctx, l
}

// open makes the control group of a run, under the name of its directory.
func (l *limiter) open(c *Config, h home) (err error) {
	l.hold, err = openHold(*c, h)
	c.hold = l.hold
	return err
}

// close ends what the limits needed. What a limit has led to becomes a failure
// that names it.
func (l *limiter) close(ctx context.Context, res *request.Result, err error) error {
	if l.hold.blame(res, err) {
		res.Failure.Message += l.at.text()
		err = nil
	}
	err = l.timedOut(ctx, res, err)
	// A group that cannot be removed now is told when the run's directory goes, which
	// does the same again: how the build ended is worth more.
	_ = l.hold.close(ctx)
	return err
}

// timedOut makes a build that was ended by its clock a failure that says where
// it was.
func (l *limiter) timedOut(ctx context.Context, res *request.Result, err error) error {
	var timeout *request.TimeoutError
	if err == nil && res.Failure == nil || !errors.As(context.Cause(ctx), &timeout) {
		return err
	}
	res.Failure = timeout.TimedOut(l.where(res.Failure))
	res.Failure.Message += l.at.text()
	return nil
}

// where is the failure that tells most about where the build was: that of the
// steps, if they had begun.
func (l *limiter) where(f *request.Failure) *request.Failure {
	for _, role := range []request.Role{request.RoleBuild, request.RoleFetch} {
		if told := l.results[role].Failure; told != nil && told.Line > 0 {
			return told
		}
	}
	return f
}

// watch is a Sink that knows which steps are at work.
type watch struct {
	request.Sink
	mu    sync.Mutex
	steps map[int]string
}

const (
	// maxWatched is how many steps are known by name, maxWatchedName how much of
	// one, in bytes.
	maxWatched     = 8
	maxWatchedName = 200
)

func newWatch(to request.Sink) *watch { return &watch{Sink: to, steps: map[int]string{}} }

// Emit implements request.Sink.
func (w *watch) Emit(e request.Event) {
	w.mu.Lock()
	switch {
	case e.Kind == request.EventStart && len(w.steps) < maxWatched:
		name, _, _ := strings.Cut(e.Name, "\n")
		w.steps[e.Step] = strings.ToValidUTF8(name[:min(len(name), maxWatchedName)], "")
	case e.Kind == request.EventDone && e.Error == "":
		// What ends with an error was ended.
		delete(w.steps, e.Step)
	}
	w.mu.Unlock()
	w.Sink.Emit(e)
}

// text says which steps were at work, in the order of their start.
func (w *watch) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, id := range slices.Sorted(maps.Keys(w.steps)) {
		list = append(list, w.steps[id])
	}
	if len(list) == 0 {
		return ""
	}
	return ", it was at " + strings.Join(list, "; ")
}
