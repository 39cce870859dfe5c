package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Tools is what the three roles need from outside, when one process plays them
// all.
type Tools struct {
	Images   *registry.Client
	Download step.Downloader
	// Git checks out repositories; nil: none can be had.
	Git Git
	// Secret returns one of Build.Secrets, Agent the reply of one of
	// Build.Agents to a message of the SSH agent protocol, both without length.
	Secret func(ctx context.Context, id string) ([]byte, error)
	Agent  func(ctx context.Context, id string, message []byte) ([]byte, error)
	Sink   request.Sink
	Outlet Outlet
	// Nodes makes device nodes where this process may not; nil: mknod.
	Nodes func(dirfd int, name string, mode uint32, dev uint64) error
	// Posture is what was measured of the walls; Walls fails if one that RUN
	// steps need is not in force.
	Posture request.Posture
	Walls   func(request.Posture) error
}

// Git checks out git repositories.
type Git interface {
	// Checkout puts the files of a commit into dir, which exists and is empty,
	// as root's with the modes that git knows, 0644 and 0755.
	Checkout(ctx context.Context, r buildcontext.Repository, dir string) (buildcontext.Checkout, error)
}

// All plays fetch, build and push in this process and tells how it went.
func All(ctx context.Context, req *request.Build, tools Tools) request.Result {
	result := request.Result{Version: request.Version, Posture: []request.RolePosture{{Inside: tools.Posture}}}
	var in Inputs
	err := all(ctx, req, tools, &in, &result)
	if err != nil {
		result.Failure = Describe(err, req, in.Dockerfile)
	}
	return result
}

func all(ctx context.Context, req *request.Build, tools Tools, in *Inputs, result *request.Result) (err error) {
	if err := tools.Walls(tools.Posture); err != nil {
		return err
	}
	steps := NewSteps(tools.Sink)
	defer steps.summary()
	for _, dest := range req.Destinations {
		full, err := registry.FullName(dest)
		if err != nil {
			return err
		}
		result.Names = append(result.Names, full)
	}
	st, err := store.Open(filepath.Join(string(req.Workspace), "store"))
	if err != nil {
		return err
	}
	space, err := rootfs.New(string(req.Workspace))
	if err != nil {
		return err
	}
	// What stays mounted for a whole build, such as a cache that started as a
	// directory of a stage: a pod's work directory could not be removed otherwise.
	defer func() { err = errors.Join(err, space.Close()) }()
	if err := Check(ctx, req, tools.Images, steps); err != nil {
		return err
	}
	if err := in.open(ctx, req, space, tools, steps); err != nil {
		return err
	}
	in.Epochs = &epochs{in: in, space: space, tools: tools}
	from := newFromRegistry(in, tools.Images, st, steps)
	if req.Call != "" {
		result.Called, err = call(ctx, req, in, from, steps)
		return err
	}
	if err := Fetch(ctx, req, in, from); err != nil {
		return err
	}
	mounts := newCaches(req, space, st, tools, steps)
	desc, err := Build(ctx, req, in, st, Bench{space, tools, mounts, steps})
	mounts.keep(ctx, err)
	if err != nil {
		return err
	}
	if err := report(result, st, desc); err != nil {
		return err
	}
	if err := Export(ctx, req, st, tools, steps); err != nil {
		return err
	}
	if req.NoPush {
		return nil
	}
	result.Pushed, err = Push(ctx, req, st, tools.Images, steps)
	return err
}

// report puts what was built into the result.
func report(result *request.Result, st *store.Store, desc v1.Descriptor) error {
	result.Digest, result.Size, result.Media = desc.Digest.String(), desc.Size, string(desc.MediaType)
	if desc.MediaType.IsIndex() {
		return nil
	}
	raw, err := st.Read(desc.Digest)
	if err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	result.Config = m.Config.Digest.String()
	return nil
}
