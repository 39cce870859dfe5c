package request

import (
	"fmt"
	"runtime"
	"time"
)

// Limits are the bounds of a build that the executor holds it to; the launcher
// looks after Timeout and Log too, in case the executor does not. Zero is the
// default where there is one, else no bound.
type Limits struct {
	// Timeout bounds the whole build, StepTimeout each instruction that changes
	// files: RUN, COPY, ADD with its download, WORKDIR.
	Timeout     time.Duration `json:"timeout,omitempty"`
	StepTimeout time.Duration `json:"stepTimeout,omitempty"`
	// PIDs bounds the processes and threads of all RUN steps together; 0:
	// DefaultPIDs.
	PIDs int64 `json:"pids,omitempty"`
	// Log bounds what is shown of the output of one step, in bytes; 0:
	// DefaultLog.
	Log int64 `json:"log,omitempty"`
	// Jobs bounds how many steps run at once; 0: as many as there are CPUs.
	Jobs int `json:"jobs,omitempty"`
}

const (
	// DefaultPIDs is far above what builds have, and far below what hurts a small
	// machine: a process of a RUN step is two of the host's, and 0.6 MB of memory.
	DefaultPIDs = 4096
	// DefaultLog is the output of one step, in bytes, and MaxLogs how many steps
	// with as much there may be in one build.
	DefaultLog = 16 << 20
	MaxLogs    = 16
)

// TasksOf is the bound of RUN's processes.
func (l Limits) TasksOf() int64 {
	if l.PIDs > 0 {
		return l.PIDs
	}
	return DefaultPIDs
}

// LogOf is the bound of one step's output, in bytes.
func (l Limits) LogOf() int64 {
	if l.Log > 0 {
		return l.Log
	}
	return DefaultLog
}

// JobsOf is how many steps may run at once.
func (l Limits) JobsOf() int64 {
	if l.Jobs > 0 {
		return int64(l.Jobs)
	}
	return int64(runtime.NumCPU())
}

// TimeoutError is a limit of time that was reached. It is the cause of the
// context that it ended.
type TimeoutError struct {
	Flag  string // --timeout or --step-timeout
	Limit time.Duration
}

func (e *TimeoutError) Error() string {
	what := "the build"
	if e.Flag == StepTimeoutFlag {
		what = "the step"
	}
	return fmt.Sprintf("%s did not end within %v (%s)", what, e.Limit, e.Flag)
}

// The flags that a TimeoutError names.
const (
	TimeoutFlag     = "--timeout"
	StepTimeoutFlag = "--step-timeout"
)

// TimedOut makes the failure of a build that was told to stop that of the limit
// of time that was reached. It keeps what the failure says of where the build
// was.
func (e *TimeoutError) TimedOut(f *Failure) *Failure {
	out := Failure{}
	if f != nil {
		out = *f
	}
	out.Class, out.Message, out.ExitCode = ClassTimeout, e.Error(), 0
	out.Hint = "give it more time with " + e.Flag
	return &out
}
