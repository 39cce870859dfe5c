package dockerfile

import (
	"errors"
	"fmt"
	"math"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Error is a fault of a Dockerfile, or a fault met because of one of its
// instructions.
type Error struct {
	Class request.Class
	Msg   string // without the place, which is in Line and EndLine
	Hint  string // what the user may do about it, or empty
	// Line and EndLine are the lines of the instruction at fault, from 1; 0
	// where no line is to blame.
	Line, EndLine int
	// Err is the error behind this one, or nil.
	Err error
}

func (e *Error) Error() string { return e.Msg }

// Unwrap returns the error behind this one.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error at a place in the Dockerfile. With %w the argument
// becomes the error behind it.
func Errorf(class request.Class, at []parser.Range, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	start, end := Lines(at)
	return &Error{Class: class, Msg: err.Error(), Line: start, EndLine: end, Err: errors.Unwrap(err)}
}

// At gives an error a class and a place. An *Error in its chain is kept as it
// is, save that it gets the place if it has none; a place that BuildKit's
// parser put into the chain wins over at.
func At(err error, class request.Class, at []parser.Range) error {
	if err == nil {
		return nil
	}
	start, end := Lines(at)
	var known *Error
	if errors.As(err, &known) {
		if known.Line == 0 {
			known.Line, known.EndLine = start, end
		}
		return known
	}
	e := &Error{Class: class, Msg: err.Error(), Line: start, EndLine: end, Err: err}
	var loc *parser.LocationError
	if errors.As(err, &loc) {
		// The parser wraps its errors in "dockerfile parse error on line N":
		// the line is a field here.
		e.Msg = loc.Error()
		if len(loc.Locations) > 0 {
			e.Line, e.EndLine = Lines(loc.Locations[0])
		}
	}
	return e
}

// Lines are the first and the last line of ranges, 0 and 0 if there are none.
func Lines(at []parser.Range) (start, end int) {
	if len(at) == 0 {
		return 0, 0
	}
	start = math.MaxInt
	for _, r := range at {
		start = min(start, r.Start.Line)
		end = max(end, r.Start.Line, r.End.Line)
	}
	return start, end
}
