package step

import (
	"fmt"
	"strings"
)

// Exit codes of a command that could not be started, as shells have them.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
	codeSignal        = 128 // plus the number of the signal
)

// ExitError is a command that failed or could not be started.
type ExitError struct {
	Args []string // the command
	// Code is its exit code; 128 plus the number of the signal that ended it;
	// 126 or 127 if it could not be executed.
	Code int
	// Signal is the number of the signal that ended it, or 0.
	Signal int
	// Cause is why it could not be started, or nil.
	Cause error
}

// Error is worded as BuildKit does.
func (e *ExitError) Error() string {
	why := fmt.Sprintf("exit code: %d", e.Code)
	if e.Cause != nil {
		why = e.Cause.Error()
	}
	return fmt.Sprintf("process %q did not complete successfully: %s", strings.Join(e.Args, " "), why)
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Cause }
