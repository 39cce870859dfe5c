package executor

import (
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
	Sink     request.Sink
	Outlet   Outlet
	// Nodes makes device nodes where this process may not; nil: mknod.
	Nodes func(dirfd int, name string, mode uint32, dev uint64) error
	// Posture is what was measured of the walls; Walls fails if one that RUN
	// steps need is not in force.
	Posture request.Posture
	Walls   func(request.Posture) error
}

// All plays fetch, build and push in this process and tells how it went.
func All(ctx context.Context, req *request.Build, tools Tools) request.Result {
	result := request.Result{Version: request.Version, Posture: tools.Posture}
	err := all(ctx, req, tools, &result)
	if err != nil {
		result.Failure = Describe(err, req)
	}
	return result
}

func all(ctx context.Context, req *request.Build, tools Tools, result *request.Result) error {
	if err := tools.Walls(result.Posture); err != nil {
		return err
	}
	steps := NewSteps(tools.Sink)
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
	if err := Check(ctx, req, tools.Images, steps); err != nil {
		return err
	}
	if err := Fetch(ctx, req, st, tools.Images, steps); err != nil {
		return err
	}
	desc, err := buildIn(ctx, req, st, tools, steps)
	if err != nil {
		return err
	}
	result.Digest, result.Size, result.Media = desc.Digest.String(), desc.Size, string(desc.MediaType)
	if err := Export(ctx, req, st, tools, steps); err != nil {
		return err
	}
	if req.NoPush {
		return nil
	}
	result.Pushed, err = Push(ctx, req, st, tools.Images, steps)
	return err
}

// buildIn lays out the workspace and builds in it. What stays mounted for a
// whole build, such as a cache that started as a directory of a stage, is
// unmounted at the end: a pod's work directory could not be removed otherwise.
func buildIn(ctx context.Context, req *request.Build, st *store.Store, tools Tools, steps *Steps) (desc v1.Descriptor, err error) {
	space, err := rootfs.New(string(req.Workspace))
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, space.Close()) }()
	files, err := buildcontext.Open(string(req.Context), string(req.Ignore))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("open context: %w", err)
	}
	bench := Bench{
		Space: space, Download: tools.Download, Nodes: tools.Nodes,
		Context: step.Source{Root: files.Root, Excluded: files.Excluded},
	}
	return Build(ctx, req, st, bench, steps)
}
