package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// exitGrace is what the sandbox has for ending after its result.
const exitGrace = time.Second

// firstOwnFD follows standard input, output and error.
const firstOwnFD = 3

// Run builds, in up to three sandboxes of their own, to the end. A build that
// failed is a Result with a Failure and no error. The error is a *WallError if a
// sandbox cannot be had, an *EndError if it broke, a *SpaceError if the disk is
// full, ctx's cause if ctx ended, else about a file of the host.
// When Run returns, nothing of the sandboxes is left: no process, mount or file.
func Run(ctx context.Context, c Config) (request.Result, error) {
	res, err := runOnce(ctx, c)
	if errors.Is(err, errLost) && c.Stdin == nil { // which cannot be read again
		warn(c.Sink, err.Error()+": the build begins again")
		return runOnce(ctx, c)
	}
	return res, err
}

func runOnce(ctx context.Context, c Config) (res request.Result, err error) {
	m, err := currentMode()
	if err != nil {
		return res, err
	}
	if c, err = c.prepared(); err != nil {
		return res, err
	}
	// A shell may have left us files of the host: no sandbox gets them.
	if err := gateway.CloseOnExec(firstOwnFD); err != nil {
		return res, &WallError{Wall: "open files", Msg: "those of the launcher cannot be kept from the sandboxes", Err: err}
	}
	if err := resolvePlaces(&c); err != nil {
		return res, err
	}
	ctx, limits := c.limited(ctx)
	defer limits.stop()
	own := newPhases(c.Sink, "")
	defer own.end()
	own.enter("prepare")
	caches, err := openCaches(&c)
	if err != nil {
		return res, err
	}
	w, err := openWorkdir(ctx, c.WorkDir, func(text string) { warn(c.Sink, text) })
	if err != nil {
		return res, err
	}
	defer func() {
		if e := w.remove(ctx); e != nil {
			warn(c.Sink, e.Error())
		}
	}()
	if err := limits.open(&c, w.home); err != nil {
		return res, err
	}
	defer func() { err = limits.close(ctx, &res, err) }()
	b := &build{c: c, home: w.home, mode: m, caches: caches, phases: own, tally: newTally(), results: map[request.Role]request.Result{}, postures: map[request.Role]request.RolePosture{}}
	limits.results = b.results
	defer own.enter("clean up")
	return b.inside(ctx)
}

// inside makes the run's directory ready and runs the roles.
func (b *build) inside(ctx context.Context) (res request.Result, err error) {
	c := &b.c
	c.disk = &disk{dir: c.WorkDir, limit: c.Quota}
	c.digest = sync.OnceValues(c.executorDigest())
	go c.digest() // while the sandboxes start
	if c.Stdin != nil {
		c.Stdin = counted{c.Stdin, c.disk}
	}
	if err := takeStdin(ctx, *c, b.home); err != nil {
		return res, err
	}
	if c.Quota, err = workspaceQuota(*c); err != nil {
		return res, err
	}
	if err := writeRoot(*c, b.home); err != nil {
		return res, err
	}
	if b.store, err = openStore(b.home.store); err != nil {
		return res, err
	}
	b.store.disk = c.disk
	if b.layers, err = openLayers(c, b.home.dir, b.store); err != nil {
		return res, err
	}
	defer b.layers.close()
	if b.contents, err = openContents(*c); err != nil {
		return res, err
	}
	defer b.contents.close()
	if b.out, err = openOutputs(c.Outputs, b.home.dir, b.store); err != nil {
		return res, err
	}
	defer b.out.discard()
	if err := b.openResults(); err != nil {
		return res, err
	}
	defer b.discardResults()
	if err := ctx.Err(); err != nil {
		return res, context.Cause(ctx)
	}
	c.Network = b.tally.watch(c.Network)
	b.events = newNumbering(c.Sink)
	ctx, stop := c.disk.guard(ctx)
	defer stop()
	b.phases.enter("sandboxes")
	res, err = b.run(ctx)
	if err != nil {
		b.layers.drop() // whoever broke the rules is not believed
	}
	b.phases.enter("keep")
	b.layers.keepSteps() // before outputs, which are not to share files with the cache
	b.caches.trim()
	if err != nil || res.Failure != nil || c.Request.Call != "" {
		return res, err
	}
	if err := b.commitResults(); err != nil {
		return res, err
	}
	return res, b.out.commit()
}

// dropNames removes the name of the file behind the workspace. gVisor has it
// open and needs no name; so the kernel frees it with the sandbox, whatever
// ends that.
func dropNames(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
	}
	return nil
}

func warn(to request.Sink, text string) {
	to.Emit(request.Event{Time: time.Now(), Kind: request.EventWarning, Text: text})
}

// runSandbox starts one role's sandbox, serves it and ends it.
func runSandbox(ctx context.Context, c Config, l layout, m mode, with conversation) (request.Result, error) {
	p, err := start(c, l, m)
	if err != nil {
		return request.Result{}, err
	}
	c.Sink = p.gate.follow(c.Sink)
	s := newSession(p.conn, c, with, func(inside request.Posture) (request.RolePosture, error) {
		found, err := p.walls.check(inside)
		return found, errors.Join(err, c.disk.open(l.role, l.work), dropNames(l.work))
	})
	defer c.disk.close(l.role)
	defer killWhenFull(ctx, l.state)()
	res, err := s.serve(ctx)
	with.phases.enter(phaseEnd)
	err = c.disk.blame(ctx, err)
	grace := exitGrace
	if err != nil {
		grace = 0
		if errors.Is(err, errNoResult) {
			grace = exitGrace // it is ending by itself: how, is worth knowing
		}
	}
	p.end(ctx, l.state, grace)
	p.gate.explain(res.Failure)
	if ctx.Err() != nil && (err != nil || res.Failure != nil) {
		return res, context.Cause(ctx)
	}
	return res, p.explain(err, s.started)
}

// resolvePlaces follows symbolic links once, so that what is checked here is
// what gVisor opens.
func resolvePlaces(c *Config) error {
	if err := checkLength(c.WorkDir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.WorkDir, 0o777); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	for name, p := range map[string]*string{"executor": &c.Executor, "work directory": &c.WorkDir} {
		real, err := filepath.EvalSymlinks(*p)
		if err != nil {
			return notIn(name, err)
		}
		*p = real
	}
	if info, err := os.Stat(c.Executor); err != nil || !info.Mode().IsRegular() {
		return notIn("executor", fmt.Errorf("%s is not a regular file", c.Executor))
	}
	if err := resolveResults(c); err != nil {
		return err
	}
	return resolveContexts(c)
}

// moveBelow changes a path below from into the same below to.
func moveBelow(from, to string, path *string) {
	if *path != "" && below(*path, from) {
		*path = filepath.Join(to, strings.TrimPrefix(*path, from))
	}
}

// below tells whether path is dir or lies in it; both are absolute and clean.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
