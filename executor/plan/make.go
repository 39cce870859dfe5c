package plan

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options is what the user asked for beside the Dockerfile. Only BuildPlatform
// is required.
type Options struct {
	// Target is the name of the stage to build; empty: the last one.
	Target string
	// Args are build arguments and Labels the target's labels; of several with
	// one name the last wins.
	Args, Labels []request.KeyValue
	// Platform is what the image is for. If it is zero the image is for
	// BuildPlatform, but keeps the platform that its base says it has.
	Platform v1.Platform
	// BuildPlatform is where the steps run.
	BuildPlatform v1.Platform
	// Several: the plan is one of several for different platforms, and the names
	// of its steps say for which.
	Several bool
	// Created is the time of the image and of its history, unless the build
	// argument SOURCE_DATE_EPOCH says otherwise. Zero: left to the build.
	Created time.Time
	// Epochs finds the times of sources that SOURCE_DATE_EPOCH names; nil: none
	// has a time.
	Epochs Epochs
	// Contexts are the named contexts, in order; of several with one name the
	// last wins.
	Contexts []NamedContext
	// Allow are the entitlements granted: network.host.
	Allow []string
	// Network is that of a RUN which names none: none, host, or empty for the
	// default.
	Network string
	// AllStages evaluates the stages that the target does not need, too.
	AllStages bool
	// Ignore are the patterns of the ignore file that applies. They change
	// nothing but the remarks about sources that they exclude.
	Ignore []string
}

// NamedContext is one --build-context.
type NamedContext struct {
	Name string
	// Image is the reference that the name stands for. For an OCI layout it is
	// made up and only the Resolver knows what it means. Empty: the context is a
	// tree of files.
	Image string
}

// Resolver finds base images.
type Resolver interface {
	// Resolve returns the image that ref, a full reference such as
	// docker.io/library/busybox:latest, names for a platform. It is called at
	// most once for each pair, concurrently, and never for an image that the
	// target does not need.
	Resolve(ctx context.Context, ref string, p v1.Platform) (*Resolved, error)
}

// Make makes the plan for a Dockerfile. Its errors are of type
// *dockerfile.Error, but for the error of a context that ended. With one that is
// about the Dockerfile the plan has the remarks up to there, and nothing else.
func Make(ctx context.Context, file *dockerfile.File, opt Options, images Resolver) (*Plan, error) {
	m, err := newMaker(file, opt, images)
	if err != nil {
		return nil, err
	}
	p, err := m.make(ctx)
	if err != nil {
		return &Plan{Warnings: m.checks.sorted()}, err
	}
	return p, nil
}

// make makes the plan; its errors are those of Make.
func (m *maker) make(ctx context.Context) (*Plan, error) {
	plan, err := m.plan(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		var known *dockerfile.Error
		if !errors.As(err, &known) {
			err = dockerfile.At(err, request.ClassParse, nil)
		}
		return nil, err
	}
	return plan, nil
}

// maker holds what is known while a plan is made.
type maker struct {
	file   *dockerfile.File
	opt    Options
	images Resolver
	checks *checks
	lex    *shell.Lex
	budget budget

	// args are the build arguments, proxies the NAME=value of those among them
	// that reach every RUN.
	args    map[string]string
	proxies []string
	// global are the arguments before the first FROM, with the predefined ones;
	// declared is what an ARG there brought in.
	global   *scope
	declared map[string]definition

	build, target ocispec.Platform
	// implicit: no platform was asked for.
	implicit bool
	// created is the time for config, history and directories, or nil.
	created *time.Time

	// stages are those of the Dockerfile in order, then images named by --from.
	stages   []*draft
	byName   map[string]*draft
	contexts contexts
	written  int // how many of stages are in the Dockerfile
	resolved map[imageKey]*answer
}

func newMaker(file *dockerfile.File, opt Options, images Resolver) (*maker, error) {
	m := &maker{
		file: file, opt: opt, images: images,
		lex:      shell.NewLex(file.Escape),
		args:     map[string]string{},
		byName:   map[string]*draft{},
		resolved: map[imageKey]*answer{},
		build:    platforms.Normalize(toOCI(opt.BuildPlatform)),
	}
	for _, kv := range opt.Args {
		m.args[kv.Key] = kv.Value
	}
	m.proxies = proxies(m.args)
	m.target = platforms.Normalize(toOCI(opt.Platform))
	if opt.Platform.OS == "" && opt.Platform.Architecture == "" {
		m.target, m.implicit = m.build, true
	}
	var err error
	if m.contexts, err = newContexts(opt.Contexts); err != nil {
		return nil, err
	}
	m.checks, err = newChecks(file, m.args, opt.Ignore)
	return m, err
}

// plan is the flow: read the stages, find those that the target needs, fire the
// triggers of their bases, evaluate them in order.
func (m *maker) plan(ctx context.Context) (*Plan, error) {
	stages, globals, err := m.file.Instructions(m.checks.lint)
	if err != nil {
		return nil, err
	}
	m.checks.syntax(m.file, m.args)
	m.checks.stageNames(stages)
	m.checks.casing(stages)
	if err := m.globals(ctx, stages, globals); err != nil {
		return nil, err
	}
	if err := m.drafts(stages); err != nil {
		return nil, err
	}
	target, err := m.findTarget()
	if err != nil {
		return nil, err
	}
	if err := m.link(); err != nil {
		return nil, err
	}
	needed, err := m.prepare(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, d := range needed {
		if err := m.evaluate(ctx, d); err != nil {
			return nil, err
		}
	}
	return m.finish(target, needed, stages)
}

// finish puts the evaluated stages together.
func (m *maker) finish(target *draft, needed []*draft, stages []instructions.Stage) (*Plan, error) {
	m.label(target)
	m.platform(target)
	target.Image.Created = m.created
	if err := m.checks.err(); err != nil {
		return nil, err
	}
	p := &Plan{
		Target:   target.Stage,
		Warnings: m.checks.sorted(),
		Ignored:  m.unconsumed(stages),
		Created:  m.created,
	}
	for _, d := range needed {
		p.Stages = append(p.Stages, d.Stage)
	}
	for _, s := range p.Stages {
		for _, step := range s.Steps {
			markFiles(s, step)
		}
	}
	layerOfNamed(target.Stage)
	return p, nil
}

// markFiles notes which filesystems a step uses: that of its own stage and
// those that it reads from.
func markFiles(s *Stage, step *Step) {
	needFiles(s)
	for _, src := range Sources(step.Op) {
		needFiles(src)
	}
}

// needFiles marks a stage and all that it stands on.
func needFiles(s *Stage) {
	for ; s != nil && !s.NeedsFiles; s = s.Base.Stage {
		s.NeedsFiles = true
	}
}
