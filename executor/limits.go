package executor

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// limitTasks bounds the processes of RUN steps, if the plans have any.
func (p *player) limitTasks(plans []*plan.Plan) (*rootfs.Tasks, error) {
	if !haveRun(plans) {
		return nil, nil
	}
	if !p.tools.Posture.GVisor {
		// Only who insisted on building without gVisor comes here. The groups of
		// that kernel are not ours.
		if p.req.Limits.PIDs > 0 {
			return nil, errors.New("--pids-limit: this kernel is not gVisor's: limit the container")
		}
		return nil, nil
	}
	dir, err := p.space.Mkdir()
	if err != nil {
		return nil, err
	}
	return rootfs.NewTasks(dir, p.req.Limits.TasksOf())
}

func haveRun(plans []*plan.Plan) bool {
	for _, p := range plans {
		for _, s := range p.Stages {
			for _, st := range s.Steps {
				if _, ok := st.Op.(*plan.Run); ok {
					return true
				}
			}
		}
	}
	return false
}

// within bounds the time of a whole build, where no launcher does.
func within(ctx context.Context, l request.Limits) (context.Context, context.CancelFunc) {
	if l.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, l.Timeout, &request.TimeoutError{Flag: request.TimeoutFlag, Limit: l.Timeout})
}

// timedOut makes a failure that comes from the end of the build's time say so.
func timedOut(ctx context.Context, f *request.Failure) *request.Failure {
	var timeout *request.TimeoutError
	if f == nil || f.Class == request.ClassTimeout || !errors.As(context.Cause(ctx), &timeout) {
		return f
	}
	return timeout.TimedOut(f)
}

// fullHint says what to do about a full workspace, and how large it is.
func fullHint(workspace request.GuestPath) string {
	var st unix.Statfs_t
	if err := unix.Statfs(string(workspace), &st); err != nil {
		return "the workspace is full: choose a larger disk with --work-dir"
	}
	return fmt.Sprintf("the workspace of %d MiB is full: choose a larger disk with --work-dir, or raise --work-size", int64(st.Blocks)*st.Bsize>>20)
}
