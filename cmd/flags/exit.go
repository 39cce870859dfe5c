package flags

import "github.com/kbuild-sandbox/kbuild-sandbox/executor/request"

// Exit statuses of a build that failed.
const (
	exitFailed   = 1
	exitTimeout  = 124 // as that of timeout(1)
	exitSandbox  = 125
	exitCanceled = 130 // as after an interrupt
)

// ExitCode is the exit status of a build with this failure: that of the RUN
// step that failed, as with Kaniko; 124 where a limit of time was reached, 125
// where a wall was not in force, 130 where the build was asked to stop, else 1. A RUN step that could not be
// started has no status of its own and counts as 1.
func ExitCode(f request.Failure) int {
	switch f.Class {
	case request.ClassRun:
		if f.ExitCode > 0 && f.ExitCode < 256 {
			return f.ExitCode
		}
		return exitFailed
	case request.ClassTimeout:
		return exitTimeout
	case request.ClassIsolation:
		return exitSandbox
	case request.ClassCanceled:
		return exitCanceled
	}
	return exitFailed
}
