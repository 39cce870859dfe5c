package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// addCache mounts a directory that lasts for this build.
func (r *run) addCache(ctx context.Context, m plan.Mount) error {
	if m.Sharing == "private" {
		return r.addPrivateCache(ctx, m)
	}
	kept, err := r.cache(ctx, m, 0)
	if err != nil {
		return err
	}
	r.mountCache(m, kept)
	return nil
}

// lockCaches takes the locks of all locked caches, in the order of their names,
// so that two commands never wait for each other.
func (r *run) lockCaches(ctx context.Context) error {
	locked := map[*rootfs.Kept]bool{}
	var list []*rootfs.Kept
	for _, m := range r.op.Mounts {
		if m.Type != "cache" || m.Sharing != "locked" {
			continue
		}
		kept, err := r.cache(ctx, m, 0)
		if err != nil {
			return err
		}
		if !locked[kept] {
			locked[kept] = true
			list = append(list, kept)
		}
	}
	slices.SortFunc(list, func(a, b *rootfs.Kept) int { return strings.Compare(a.Name(), b.Name()) })
	for _, kept := range list {
		if err := kept.Lock(ctx); err != nil {
			return err
		}
		r.undo = append(r.undo, func() error { kept.Unlock(); return nil })
	}
	return nil
}

// addPrivateCache takes the first copy of the cache that nobody else has.
func (r *run) addPrivateCache(ctx context.Context, m plan.Mount) error {
	for i := 0; ; i++ {
		kept, err := r.cache(ctx, m, i)
		if err != nil {
			return err
		}
		if !kept.TryLock() {
			continue
		}
		r.undo = append(r.undo, func() error { kept.Unlock(); return nil })
		r.mountCache(m, kept)
		return nil
	}
}

func (r *run) mountCache(m plan.Mount, kept *rootfs.Kept) {
	r.config.Mounts = append(r.config.Mounts, childMount{
		Source: kept.Dir(), Target: m.Target, Dir: true, ReadOnly: m.ReadOnly,
	})
}

// Cache is a cache mount: what makes it this one and no other, and its start.
type Cache struct {
	ID string
	// From and Source are what it starts as. Owner is the owner and mode that a
	// new directory was asked to have, or empty: caches are separate by it, as in
	// BuildKit.
	From   plan.From
	Source string
	Owner  string
	// Copy tells the copies of a cache that is shared with nobody.
	Copy int
	// Start makes the directory that the cache starts as, which is not to be
	// changed; undo lets go of it.
	Start func(ctx context.Context) (dir string, undo func() error, err error)
}

// cache finds or makes the directory of a cache.
func (r *run) cache(ctx context.Context, m plan.Mount, copy int) (*rootfs.Kept, error) {
	if r.env.OpenCache == nil {
		return nil, errors.New("RUN --mount=type=cache: no cache mounts in this build")
	}
	c := r.named(m, copy)
	c.Start = func(ctx context.Context) (string, func() error, error) { return r.cacheStart(ctx, m, c) }
	kept, err := r.env.OpenCache(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("RUN --mount=type=cache: %w", err)
	}
	return kept, nil
}

// named is what tells a cache from others. As in BuildKit, owner and mode are
// for a directory that is new, and count where no source was given.
func (r *run) named(m plan.Mount, copy int) Cache {
	c := Cache{ID: m.ID, From: m.From, Source: filepath.Join("/", m.Source), Copy: copy}
	if c.Source == "/" && (m.Mode != nil || m.UID != nil || m.GID != nil) {
		mode, uid, gid := ownerOf(m)
		c.Owner = fmt.Sprintf("%#o %d:%d", mode, uid, gid)
	}
	return c
}

// cacheStart makes what a cache starts as.
func (r *run) cacheStart(ctx context.Context, m plan.Mount, c Cache) (dir string, undo func() error, err error) {
	starts := c.From.Kind == plan.FromStage || c.From.Kind == plan.FromNamed
	if c.Owner == "" && starts {
		return r.cacheFrom(ctx, m)
	}
	if c.Source != "/" {
		return "", nil, fmt.Errorf("%q: not found", c.Source)
	}
	if dir, err = r.env.Space.Mkdir(); err != nil {
		return "", nil, err
	}
	mode, uid, gid := ownerOf(m)
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return "", nil, err
	}
	return dir, func() error { return nil }, unix.Chmod(dir, mode)
}

// cacheFrom is a directory of a stage or of a named context.
func (r *run) cacheFrom(ctx context.Context, m plan.Mount) (dir string, undo func() error, err error) {
	tree, err := r.source(ctx, m.From, m.Source)
	if err != nil {
		return "", nil, err
	}
	view, release, err := tree.View(ctx)
	if err != nil {
		return "", nil, err
	}
	if dir, err = directory(view, m.Source); err != nil {
		return "", nil, errors.Join(err, release())
	}
	return dir, release, nil
}

// directory is the path of a directory below root, free of links.
func directory(root, name string) (string, error) {
	fd, err := beneath.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	at, err := beneath.Resolve(fd, name)
	if err != nil {
		return "", err
	}
	defer at.Close()
	if !at.IsDir() {
		return "", fmt.Errorf("%q: not a directory", filepath.Join("/", name))
	}
	return filepath.Join(root, at.Name()), nil
}

// ownerOf is the mode and owner of a new cache directory.
func ownerOf(m plan.Mount) (mode, uid, gid uint32) {
	mode = 0o755
	if m.Mode != nil {
		mode = *m.Mode
	}
	if m.UID != nil {
		uid = *m.UID
	}
	if m.GID != nil {
		gid = *m.GID
	}
	return mode, uid, gid
}
