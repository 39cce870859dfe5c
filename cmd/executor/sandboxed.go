package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/posture"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// What the launcher lays out for the executor; see package sandbox.
const (
	channelFd   = 3
	requestFile = "/in/request.json"
	rootsFile   = "/in/ca-certificates.crt"
)

// sandboxed is the executor as the launcher starts it: the request is a file,
// everything else goes over the channel.
func sandboxed() int {
	// The channel arrives without CLOEXEC; a RUN step must not inherit it.
	unix.CloseOnExec(channelFd)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch := newChannel(os.NewFile(channelFd, "channel"), cancel)
	result := request.Result{Version: request.Version}
	req, tools, err := prepare(ch)
	if err == nil {
		tools.Posture, err = measure()
	}
	if err == nil {
		err = ch.hello(ctx, tools.Posture)
	}
	if err == nil {
		result = executor.All(ctx, req, tools)
	} else {
		result.Failure = &request.Failure{Class: request.ClassInternal, Message: err.Error()}
	}
	if err := ch.w.WriteJSON(request.FrameResult, result); err != nil {
		fmt.Fprintln(os.Stderr, "executor:", err)
		return 1
	}
	if result.Failure != nil {
		return 1
	}
	return 0
}

func prepare(ch *channel) (*request.Build, executor.Tools, error) {
	// Nobody reads the executor's memory or environment through /proc.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, executor.Tools{}, fmt.Errorf("make the executor undumpable: %w", err)
	}
	unix.Umask(0o022)
	b, err := os.ReadFile(requestFile)
	if err != nil {
		return nil, executor.Tools{}, fmt.Errorf("read request: %w", err)
	}
	var req request.Build
	if err := json.Unmarshal(b, &req); err != nil {
		return nil, executor.Tools{}, fmt.Errorf("read request: %w", err)
	}
	if req.Version != request.Version {
		return nil, executor.Tools{}, fmt.Errorf("the launcher speaks version %d, the executor %d: they are of different releases", req.Version, request.Version)
	}
	roots, err := os.ReadFile(rootsFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, executor.Tools{}, fmt.Errorf("read CA certificates: %w", err)
	}
	images, err := registry.New(registry.Config{
		Registry: req.Registry, Keychain: ch, Roots: roots, UserAgent: "kbuild-sandbox/" + version, Note: noteTo(ch),
	})
	if err != nil {
		return nil, executor.Tools{}, err
	}
	tools := executor.Tools{
		Images: images, Secret: ch.Secret, Agent: ch.Agent, Sink: ch, Outlet: ch, Walls: launcherWalls,
	}
	cfg := buildcontext.HTTPConfig{Roots: roots, UserAgent: "kbuild-sandbox/" + version}
	err = addSources(&req, cfg, &tools)
	return &req, tools, err
}

// noteTo passes on what went wrong and is tried again.
func noteTo(sink request.Sink) func(string) {
	return func(text string) {
		sink.Emit(request.Event{Time: time.Now(), Kind: request.EventInfo, Text: text})
	}
}

func measure() (request.Posture, error) {
	p, err := posture.Measure()
	p.Executor = version
	return p, err
}

// launcherWalls are the walls that the launcher promised.
func launcherWalls(p request.Posture) error {
	if !p.GVisor {
		return &executor.WallError{Wall: "gVisor", Found: "this kernel is not gVisor's: " + p.Kernel}
	}
	return needSeccomp(p)
}
