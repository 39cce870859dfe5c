package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/posture"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
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
		result = play(ctx, req, ch, tools)
	} else {
		result.Failure = &request.Failure{Class: request.ClassInternal, Message: err.Error()}
	}
	if err := ch.end(result); err != nil {
		fmt.Fprintln(os.Stderr, "executor:", err)
		return 1
	}
	if result.Failure != nil {
		return 1
	}
	return 0
}

// play plays the role that the request names.
func play(ctx context.Context, req *request.Build, ch *channel, tools executor.Tools) request.Result {
	switch req.Role {
	case request.RoleFetch:
		return executor.Fetch(ctx, req, tools)
	case request.RoleBuild:
		return executor.Build(ctx, req, ch.start, tools)
	case request.RolePush:
		return executor.Push(ctx, req, ch.next, tools)
	}
	failure := &request.Failure{Class: request.ClassInternal, Message: fmt.Sprintf("role %q is unknown", req.Role)}
	return request.Result{Version: request.Version, Failure: failure}
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
	if err := setProxies(req.Gateway.Proxy); err != nil {
		return nil, executor.Tools{}, err
	}
	roots, err := os.ReadFile(rootsFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, executor.Tools{}, fmt.Errorf("read CA certificates: %w", err)
	}
	tools := executor.Tools{Secret: ch.Secret, Agent: ch.Agent, Sink: ch, Outlet: ch, Walls: launcherWalls}
	if req.Role == request.RolePush {
		tools.Ahead = ch.ahead
	}
	if req.StepCache {
		tools.Steps, tools.Contents = ch, ch.Contents
	}
	if req.Role != request.RoleBuild {
		tools.Images, err = registries(&req, ch, roots)
	}
	if err == nil && req.Role != request.RolePush {
		err = addSources(&req, buildcontext.HTTPConfig{
			Roots: roots, UserAgent: agent(), Proxy: http.ProxyFromEnvironment, Gateway: req.Gateway,
		}, &tools)
	}
	return &req, tools, err
}

// registries is the client of registries, for those roles that have one.
func registries(req *request.Build, ch *channel, roots []byte) (*registry.Client, error) {
	keys := keychain{channel: ch}
	if req.Role == request.RolePush {
		keys.always = request.Push
	}
	return registry.New(registry.Config{
		Registry: req.Registry, Keychain: keys, Roots: roots, UserAgent: agent(), Note: noteTo(ch),
		Proxy: http.ProxyFromEnvironment, Gateway: req.Gateway,
	})
}

func agent() string { return "kbuild-sandbox/" + version }

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

// launcherWalls are the walls that the launcher promised, as the executor finds
// them; the launcher compares the same with what it asked for, and more.
func launcherWalls(p request.Posture) error {
	mask, err := policy.CapabilityMask(policy.ExecutorCapabilities())
	if err != nil {
		return err
	}
	bounding, err := strconv.ParseUint(p.Capabilities.Bounding, 16, 64)
	missing := func(wall, found string) error { return &executor.WallError{Wall: wall, Found: found} }
	switch {
	case !p.GVisor:
		return missing("gVisor", "this kernel is not gVisor's: "+p.Kernel)
	case !slices.Equal(p.Denied, policy.ExecutorDenies()):
		return missing("seccomp", fmt.Sprintf("the filter stops %q of %q", p.Denied, policy.ExecutorDenies()))
	case err != nil || bounding&^mask != 0:
		return missing("capabilities", fmt.Sprintf("the bounding set is %s, %016x is allowed", p.Capabilities.Bounding, mask))
	case p.InUserns:
		return missing("user namespace", "it is not the sandbox's first")
	case slices.ContainsFunc(p.Mounts, func(m request.Mounted) bool { return m.Type == hostFiles && m.Writable }):
		return missing("mounts", "files of the host are writable")
	}
	return needSeccomp(p)
}

// hostFiles is the type of a mount of files of the host, in gVisor.
const hostFiles = "9p"
