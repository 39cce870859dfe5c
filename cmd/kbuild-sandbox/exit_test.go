package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// The exit status of every way to end, see exitHelp.
func TestExitCode(t *testing.T) {
	failed := func(f request.Failure) error { return &buildError{request.Result{Failure: &f}} }
	for _, tt := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("some file"), 1},
		{failed(request.Failure{Class: request.ClassParse}), 1},
		{failed(request.Failure{Class: request.ClassRun, ExitCode: 7}), 7},
		{failed(request.Failure{Class: request.ClassResource}), 1},
		{failed(request.Failure{Class: request.ClassTimeout}), 124},
		{failed(request.Failure{Class: request.ClassIsolation}), 125},
		{failed(request.Failure{Class: request.ClassCanceled}), 130},
		{&flags.Error{Msg: "wrong"}, 2},
		{&flags.Error{Msg: "not there", Input: true}, 1},
		{&sandbox.WallError{Wall: "cgroup"}, 125},
		{fmt.Errorf("build: %w", &sandbox.WallError{Wall: "seccomp"}), 125},
		{&runsc.Error{Msg: "too old"}, 125},
		{&sandbox.EndError{Msg: "the sandbox broke"}, 70},
		{&sandbox.SpaceError{}, 1},
	} {
		if got := exitCode(t.Context(), tt.err); got != tt.code {
			t.Errorf("%v: status %d, want %d", tt.err, got, tt.code)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalError{syscall.SIGTERM})
	if got := exitCode(ctx, context.Cause(ctx)); got != 143 {
		t.Errorf("after SIGTERM: status %d", got)
	}
}
