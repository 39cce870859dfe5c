package sandbox

import (
	"fmt"
	"strings"
)

// WallError says that a wall of the sandbox is not in force, or that the
// sandbox cannot be had on this machine. Nothing was built.
type WallError struct {
	Wall string // what is missing: "gVisor", "user namespace", "seccomp" ...
	Msg  string
	Hint string // what to do about it
	Log  string // the lines of gVisor's own report that matter, or ""
	Err  error  // the cause, or nil
}

func (e *WallError) Error() string {
	s := e.Wall + ": " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *WallError) Unwrap() error { return e.Err }

// EndError says that the sandbox ended without a result, or broke the protocol.
type EndError struct {
	Msg    string
	Status string // how runsc ended, or ""
	Hint   string
	// Output is the last that the executor itself printed, such as a panic;
	// without control characters.
	Output string
	// Log is what gVisor reported, or "".
	Log string
	Err error // the cause, or nil
}

func (e *EndError) Error() string {
	s := e.Msg
	if e.Status != "" {
		s += " (" + e.Status + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *EndError) Unwrap() error { return e.Err }

const doctorHint = "`kbuild-sandbox doctor` shows what this machine lacks"

func notIn(config string, err error) error {
	return fmt.Errorf("sandbox: %s: %w", config, err)
}

// printable makes text of an untrusted side fit for a terminal: line feeds and
// tabs stay, other control characters and invalid UTF-8 become '?'.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20 || (r >= 0x7f && r < 0xa0) || r == '\ufffd':
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
