package executor

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cache"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// player plays a role, or all of them.
type player struct {
	req    *request.Build
	tools  Tools
	steps  *Steps
	space  *rootfs.Space // see enter
	in     Inputs
	layers []string // keys of layers that are mounted, see request.LayerPath
	// cache is the layer cache; nil: there is none, or it cannot be used. places are
	// asked after it, by who may dial; nil: there are none.
	cache  LayerCache
	places *cache.Finder
	// late pulls results that are found while steps are done; nil: who does steps
	// may not dial.
	late *fromRegistry
	// known is what fetch has found in them of the steps of all plans, contents what it
	// has read for that.
	known    []request.KnownStep
	contents map[*plan.Copy]string
	// layersReady are layers of the image that may be uploaded; nil: who builds does not push.
	layersReady chan request.Descriptor
	result      request.Result
}

// play does the work of a role, if the walls are in force, and tells how it went.
func play(ctx context.Context, req *request.Build, tools Tools, work func(*player, context.Context) error) request.Result {
	tools.Sink = request.NewClip(tools.Sink, req.Limits, false)
	p := &player{
		req: req, tools: tools, steps: NewSteps(tools.Sink),
		result: request.Result{Version: request.Version, Posture: []request.RolePosture{{Role: req.Role, Inside: tools.Posture}}},
	}
	err := tools.Walls(tools.Posture)
	if err == nil {
		err = p.name()
	}
	if err == nil {
		err = work(p, ctx)
	}
	if err != nil {
		p.result.Failure = timedOut(ctx, Describe(err, req, p.in.Dockerfile))
	}
	return p.result
}

// name puts the full names of the destinations into the result.
func (p *player) name() error {
	for _, dest := range p.req.Destinations {
		full, err := registry.FullName(dest)
		if err != nil {
			return err
		}
		p.result.Names = append(p.result.Names, full)
	}
	return nil
}

// enter opens the workspace.
func (p *player) enter() (err error) {
	defer p.steps.span("open workspace")()
	p.space, err = rootfs.New(string(p.req.Workspace))
	return err
}

// leave unmounts what stays mounted for a whole build, such as a cache that
// started as a directory of a stage: a pod's work directory could not be removed
// otherwise.
func (p *player) leave(err *error) {
	defer p.steps.span("close workspace")()
	*err = errors.Join(*err, p.space.Close())
}

func (p *player) storeDir() string { return filepath.Join(string(p.req.Workspace), "store") }

// Fetch plays the role of that name: everything that comes from registries, and
// contexts that are no files of the caller's, go out for the roles that follow.
func Fetch(ctx context.Context, req *request.Build, tools Tools) request.Result {
	return play(ctx, req, tools, (*player).fetch)
}

func (p *player) fetch(ctx context.Context) (err error) {
	defer func() {
		if err != nil || p.req.Call != "" { // else Build tells it at its end
			p.steps.summary()
		}
	}()
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave(&err)
	st, err := store.Streaming(p.storeDir(), p.tools.Outlet, nil, false)
	if err != nil {
		return err
	}
	if p.req.Call != "" {
		if err := p.read(ctx, fetcher{}); err != nil {
			return err
		}
		if p.req.Call == request.CallWarm {
			return p.pull(ctx, st)
		}
		return p.call(ctx, st)
	}
	if err := p.read(ctx, fetcher{out: p.tools.Outlet}); err != nil {
		return err
	}
	if err := p.pull(ctx, st); err != nil {
		return err
	}
	return st.HandOut()
}

// Build plays the role of that name: it makes the image of what Fetch has handed
// out, and hands out what is new.
func Build(ctx context.Context, req *request.Build, start request.Go, tools Tools) request.Result {
	return play(ctx, req, tools, func(p *player, ctx context.Context) error { return p.build(ctx, start) })
}

func (p *player) build(ctx context.Context, start request.Go) (err error) {
	defer p.steps.summary()
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave(&err)
	fetched, err := store.ReadOnly(string(p.req.Store))
	if err != nil {
		return err
	}
	st, err := store.Streaming(p.storeDir(), p.tools.Outlet, fetched, p.req.Tar)
	if err != nil {
		return err
	}
	p.layers, p.known = start.Layers, start.Steps
	times, err := p.useFetched(start.Fetched)
	if err != nil {
		return err
	}
	if err := p.read(ctx, fetcher{times: times}); err != nil {
		return err
	}
	desc, err := p.make(ctx, st)
	if err != nil {
		return err
	}
	return p.export(ctx, desc, func(_ context.Context, h v1.Hash) (io.ReadCloser, int64, error) { return st.Open(h) })
}

// Push plays the role of that name: it asks whether a push will be allowed, uploads
// the layers of Tools.Ahead until next names the image, and pushes that.
func Push(ctx context.Context, req *request.Build, next func(context.Context) (request.Pushing, error), tools Tools) request.Result {
	return play(ctx, req, tools, func(p *player, ctx context.Context) error {
		p.steps.expect(1 + len(req.Destinations) + len(req.CacheTo))
		if err := p.check(ctx); err != nil {
			return err
		}
		readOnly := func() (*store.Store, error) { return store.ReadOnly(string(req.Store)) }
		uploads, err := p.uploadAhead(ctx, readOnly, tools.Ahead)
		if err != nil {
			return err
		}
		defer uploads.stop()
		what, err := next(ctx)
		if err != nil {
			return err
		}
		uploads.enough()
		image, err := described(what.Descriptor)
		if err != nil {
			return err
		}
		st, err := readOnly()
		if err != nil {
			return err
		}
		if err := p.attach(ctx, st, what.Attached); err != nil {
			return err
		}
		if err := p.push(ctx, st, image); err != nil {
			return err
		}
		return p.pushResults(ctx, st, what.Exported)
	})
}
