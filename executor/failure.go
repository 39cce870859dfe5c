package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// StepError is a step that failed.
type StepError struct {
	Step *plan.Step
	Log  []byte // its last output
	Err  error
}

func (e *StepError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// WallError is a wall of the sandbox that is not in force.
type WallError = step.WallError

// Describe puts an error of Fetch, Build or Push into the form that crosses
// the wall. The Dockerfile's text is for the excerpt; it may be nil.
func Describe(err error, req *request.Build, text []byte) *request.Failure {
	f := &request.Failure{Class: request.ClassInternal, Message: err.Error(), File: req.DockerfileName}
	var (
		wall *WallError
		file *dockerfile.Error
		reg  *registry.Error
		st   *StepError
		exit *step.ExitError

		timeout *request.TimeoutError
		foreign *step.ForeignError
		notLent *step.NotLentError
	)
	if errors.As(err, &st) {
		f.Class, f.Log = stepClass(st.Step), st.Log
		f.Line, f.EndLine = st.Step.Line, st.Step.EndLine
	}
	if errors.As(err, &file) {
		f.Class, f.Hint, f.Line, f.EndLine = file.Class, file.Hint, file.Line, file.EndLine
	}
	if errors.As(err, &reg) {
		f.Class, f.Hint = reg.Class, reg.Hint
	}
	if errors.As(err, &exit) {
		f.Class, f.ExitCode, f.Hint = request.ClassRun, exit.Code, killed(exit.Code)
	}
	if errors.As(err, &notLent) {
		f.Hint = "lend it with " + notLent.Flag
	}
	if st != nil && fromContext(st.Step) && errors.Is(err, step.ErrNotFound) {
		f.Hint = "sources are looked for in the context and nowhere above it; what its ignore file excludes is not there"
	}
	switch {
	case st == nil:
	case errors.As(err, &foreign):
		f.Message, f.Hint = headline(st.Step.Name)+": "+foreign.Error(), crossCompile
	case req.Index:
		f.Message = bracket(st.Step.Name) + f.Message
	}
	switch {
	case errors.As(err, &wall):
		f.Class, f.Hint = request.ClassIsolation, "see: kbuild-sandbox doctor"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Class, f.ExitCode, f.Hint = request.ClassResource, 0, fullHint(req.Workspace)
	case errors.Is(err, layer.ErrLimit):
		f.Class = request.ClassResource
	case errors.As(err, &timeout):
		f = timeout.TimedOut(f)
	case errors.Is(err, context.Canceled):
		f.Class, f.Message = request.ClassCanceled, "build canceled"
	}
	if f.Line > 0 && text != nil {
		f.Excerpt = dockerfile.Excerpt(text, f.Line, f.EndLine)
	}
	return f
}

// fromContext says whether a step copies from the build context.
func fromContext(s *plan.Step) bool {
	op, ok := s.Op.(*plan.Copy)
	return ok && op.From.Kind == plan.FromContext
}

const crossCompile = "start the stage with FROM --platform=$BUILDPLATFORM, cross-compile there for $TARGETARCH, and COPY --from it: files of any architecture can be copied"

// headline is the first line of a step's name, cut to what can be read.
func headline(name string) string {
	const most = 200 // bytes
	line, _, more := strings.Cut(name, "\n")
	if len(line) > most {
		line, more = strings.ToValidUTF8(line[:most], ""), true
	}
	if more {
		line += " ..."
	}
	return line
}

// bracket is what stands before a step's instruction: its platform, stage and
// number.
func bracket(name string) string {
	if i := strings.Index(name, "] "); i > 0 && name[0] == '[' {
		return name[:i+2]
	}
	return ""
}

// killed explains the exit code of a command, or of its shell's command, that a
// signal has ended.
func killed(code int) string {
	s := syscall.Signal(code - 128)
	name := unix.SignalName(s)
	if name == "" {
		return ""
	}
	text := fmt.Sprintf("exit code %d is 128+%d: ended by %s", code, s, name)
	if s == syscall.SIGKILL {
		text += ", as happens when memory runs out"
	}
	return text
}

func stepClass(s *plan.Step) request.Class {
	if _, ok := s.Op.(*plan.Run); ok {
		return request.ClassRun
	}
	return request.ClassCopy
}

// tailSize is how much of a step's last output a failure shows, in bytes.
const tailSize = 4 << 10

// tail keeps the last bytes of a stream.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool // there was more
}

func (t *tail) add(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > tailSize {
		t.buf, t.cut = append(t.buf[:0:0], t.buf[len(t.buf)-tailSize:]...), true
	}
}

// bytes are whole lines, if there are: half a line may be half a secret, which
// nobody would know to mask.
func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := bytes.IndexByte(t.buf, '\n'); t.cut && i >= 0 && i+1 < len(t.buf) {
		return t.buf[i+1:]
	}
	return t.buf
}
