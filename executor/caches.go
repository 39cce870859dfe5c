package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// maxDeltas is how many layers a cache mount gets on top of its first before it
// is kept as one again: each costs the next build a directory and a file.
const maxDeltas = 8

// caches are the cache mounts of one build. Each starts as an earlier build left
// it, and what this build changed is handed out at its end. Without a cache
// directory they last as long as the build.
type caches struct {
	dir       *cachedir.Dir // nil: nothing is kept
	limit     int64         // bytes that all caches together may have
	namespace string
	space     *rootfs.Space
	store     *store.Store
	tools     Tools
	steps     *Steps

	mu   sync.Mutex
	open []*openCache
}

// openCache is a cache mount in use.
type openCache struct {
	id    string // as the Dockerfile has it
	key   cachedir.Key
	state cachedir.State // that it started as; zero: it is new
	tree  *rootfs.Tree
	mount *rootfs.Mount
	root  unix.Stat_t // of the upper directory at the start
}

// newCaches keeps the layers of caches in a directory of its own until they have
// been handed out: they are no part of the build's store.
func newCaches(req *request.Build, space *rootfs.Space, tools Tools, steps *Steps) (*caches, error) {
	st, err := store.Open(filepath.Join(string(req.Workspace), "caches"))
	if err != nil {
		return nil, err
	}
	c := &caches{limit: req.CacheSize, space: space, store: st, tools: tools, steps: steps}
	if req.Caches != "" {
		c.dir = cachedir.At(string(req.Caches))
	}
	for _, a := range req.Args {
		if a.Key == "BUILDKIT_CACHE_MOUNT_NS" {
			c.namespace = a.Value
		}
	}
	return c, nil
}

// opener is step.Env.OpenCache for the steps of img.
func (c *caches) opener(img *image) func(context.Context, step.Cache) (*rootfs.Kept, error) {
	return func(ctx context.Context, want step.Cache) (*rootfs.Kept, error) {
		name, err := c.name(ctx, img, want)
		if err != nil {
			return nil, err
		}
		return c.space.Keep(name, func() (string, func() error, error) { return c.begin(ctx, name, want) })
	}
}

// name is the full name of a cache, from which its key is made: BuildKit's
// namespace and id, and all that makes two caches of one id different.
func (c *caches) name(ctx context.Context, img *image, want step.Cache) (string, error) {
	from, err := c.identity(ctx, img, want)
	if err != nil {
		return "", err
	}
	full := struct{ Namespace, ID, From, Source, Owner, Copy string }{
		c.namespace, want.ID, from, want.Source, want.Owner, fmt.Sprint(want.Copy),
	}
	text, err := json.Marshal(full)
	return "cache mount " + string(text), err
}

// begin mounts a cache, with an upper directory of its own for what changes.
func (c *caches) begin(ctx context.Context, name string, want step.Cache) (dir string, undo func() error, err error) {
	o := &openCache{id: want.ID, key: cachedir.KeyOf(name)}
	release := func() error { return nil }
	lowers, err := c.take(ctx, o)
	if err != nil {
		return "", nil, err
	}
	if len(lowers) == 0 {
		start, undo, err := want.Start(ctx)
		if err != nil {
			return "", nil, err
		}
		lowers, release = []string{start}, undo
	}
	o.tree = c.space.Tree(lowers...)
	if o.mount, err = o.tree.Begin(ctx); err == nil {
		err = unix.Lstat(o.mount.Upper(), &o.root)
	}
	if err != nil {
		return "", nil, errors.Join(err, release())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, o)
	return o.mount.Root(), func() error { return errors.Join(o.mount.Discard(), release()) }, nil
}

// take unpacks what an earlier build left. What cannot be used is told, and the
// cache starts anew; but where only the room for it is missing, it is left alone.
func (c *caches) take(ctx context.Context, o *openCache) (lowers []string, err error) {
	if c.dir == nil {
		return nil, nil
	}
	snap, err := c.dir.Take(o.key)
	if err == nil && len(snap.Files) > 0 {
		defer snap.Close()
		o.state = snap.State
		err = c.steps.do("unpack cache mount "+o.id, func(*announced) (err error) {
			lowers, err = c.unpackAll(ctx, snap)
			return err
		})
	}
	switch {
	case err == nil:
		return lowers, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, unix.ENOSPC):
		return nil, err
	}
	o.state = cachedir.State{}
	c.steps.Warn(fmt.Sprintf("cache mount %s: what was kept of it cannot be used, it starts anew: %v", o.id, err), 0)
	return nil, nil
}

// unpackAll makes a lower directory of each layer, or none at all.
func (c *caches) unpackAll(ctx context.Context, snap *cachedir.Snapshot) (lowers []string, err error) {
	for i, f := range snap.Files {
		dir, err := c.unpack(ctx, f, snap.Layers[i], lowers)
		if dir != "" {
			lowers = append(lowers, dir)
		}
		if err != nil {
			for _, dir := range lowers {
				err = errors.Join(err, os.RemoveAll(dir))
			}
			return nil, err
		}
	}
	return lowers, nil
}

// unpack makes a lower directory of one layer. Nobody sees it before the digest
// was right.
func (c *caches) unpack(ctx context.Context, f io.Reader, l cachedir.Layer, lowers []string) (dir string, err error) {
	if dir, err = c.space.Mkdir(); err != nil {
		return "", err
	}
	sum := sha256.New()
	in := io.TeeReader(f, sum)
	if _, err := layer.Unpack(ctx, in, dir, layer.UnpackOptions{Lowers: lowers, Nodes: c.tools.Nodes}); err != nil {
		return dir, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return dir, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.Digest {
		return dir, fmt.Errorf("layer %s has digest %s: %w", l.Digest, got, errMismatch)
	}
	return dir, nil
}

// keep hands out what the build changed, whether it succeeded or not, as BuildKit
// keeps it. What goes wrong with it costs a cache and not the build.
func (c *caches) keep(ctx context.Context, built error) {
	var wall *WallError
	if c.dir == nil || ctx.Err() != nil || errors.As(built, &wall) {
		return
	}
	for _, o := range c.open {
		if err := c.keepOne(ctx, o); err != nil && ctx.Err() == nil {
			c.steps.Warn(fmt.Sprintf("cache mount %s is not kept: %v", o.id, err), 0)
		}
	}
}

func (c *caches) keepOne(ctx context.Context, o *openCache) error {
	upper, err := o.mount.Commit()
	if err != nil {
		return err
	}
	changed, err := o.changed(upper)
	if err != nil {
		return err
	}
	what := request.Output{Kind: request.OutputCache, Name: string(o.key), Base: o.state.Chain()}
	if changed {
		// A warning tells what goes wrong: the step of a build that succeeds has
		// not failed.
		_ = c.steps.do("keep cache mount "+o.id, func(*announced) error {
			err = c.handOut(ctx, o, upper, what)
			return nil
		})
		return err
	}
	if what.Base == "" {
		return nil // new and empty, or as it is in the image
	}
	return send(c.tools.Outlet, what, eof{})
}

// changed tells whether anything was done to the cache: its upper directory
// holds something, or is no longer what it was.
func (o *openCache) changed(upper string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(upper, &st); err != nil {
		return false, err
	}
	if st.Mode != o.root.Mode || st.Uid != o.root.Uid || st.Gid != o.root.Gid {
		return true, nil
	}
	d, err := os.Open(upper)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return true, err
}

// compression is that of cache mounts: the fastest there is. What is in them is
// often compressed already.
var compression = request.Compression{Algorithm: "zstd", Level: 1}

// handOut packs what has changed, or the whole of the cache, and hands it out.
func (c *caches) handOut(ctx context.Context, o *openCache, upper string, what request.Output) error {
	opt := layer.PackOptions{Compression: compression, Root: true}
	if o.state.Layers == nil || o.outgrown() {
		root, release, err := o.tree.View(ctx)
		if err != nil {
			return err
		}
		defer release()
		upper, what.Base = root, ""
	}
	blob, err := layer.Pack(ctx, upper, c.store, opt)
	if err != nil {
		return err
	}
	if blob.Size > c.limit {
		return fmt.Errorf("it has %d bytes, and all cache mounts together may have %d", blob.Size, c.limit)
	}
	what.Digest, what.Size = blob.Digest.String(), blob.Size
	r, _, err := c.store.Open(blob.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return send(c.tools.Outlet, what, r)
}

// outgrown tells whether the layers on top of the first are too many, or larger
// than it is.
func (o *openCache) outgrown() bool {
	var deltas int64
	for _, l := range o.state.Layers[1:] {
		deltas += l.Size
	}
	return len(o.state.Layers) > maxDeltas || deltas > o.state.Layers[0].Size
}

// eof has no bytes.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
