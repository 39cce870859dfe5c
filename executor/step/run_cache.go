package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

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
	byName := map[string]plan.Mount{}
	var names []string
	for _, m := range r.op.Mounts {
		if m.Type != "cache" || m.Sharing != "locked" {
			continue
		}
		name := cacheName(m, 0)
		if _, ok := byName[name]; !ok {
			names = append(names, name)
		}
		byName[name] = m
	}
	slices.Sort(names)
	for _, name := range names {
		kept, err := r.cache(ctx, byName[name], 0)
		if err != nil {
			return err
		}
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

// cacheName is one name for each cache and each of its copies. What it starts
// from is a part of it.
func cacheName(m plan.Mount, copy int) string {
	from := ""
	if m.From.Stage != nil {
		from = fmt.Sprintf(" of stage %d, %q", m.From.Stage.ID, filepath.Join("/", m.Source))
	}
	return fmt.Sprintf("cache %q%s, copy %d", m.ID, from, copy)
}

// cache finds or makes the directory of a cache.
func (r *run) cache(ctx context.Context, m plan.Mount, copy int) (*rootfs.Kept, error) {
	return r.env.Space.Keep(cacheName(m, copy), func() (string, func() error, error) {
		if m.From.Stage != nil {
			return r.cacheFrom(ctx, m)
		}
		dir, err := r.env.Space.Mkdir()
		if err != nil {
			return "", nil, err
		}
		return dir, nil, dress(dir, m)
	})
}

// cacheFrom makes a cache that starts as a directory of a stage: that directory
// with an upper of its own on top.
func (r *run) cacheFrom(ctx context.Context, m plan.Mount) (dir string, undo func() error, err error) {
	tree, err := r.source(ctx, m.From, m.Source)
	if err != nil {
		return "", nil, err
	}
	view, release, err := tree.View(ctx)
	if err != nil {
		return "", nil, err
	}
	lower, err := directory(view, m.Source)
	if err == nil {
		var scratch *rootfs.Mount
		if scratch, err = r.env.Space.Tree(lower).Begin(ctx); err == nil {
			return scratch.Root(), func() error { return errors.Join(scratch.Discard(), release()) }, nil
		}
	}
	return "", nil, errors.Join(err, release())
}

// directory is the path of a directory below root, free of links.
func directory(root, name string) (string, error) {
	fd, err := openRoot(root)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	at, err := resolve(fd, name)
	if err != nil {
		return "", err
	}
	defer at.close()
	if !at.isDir() {
		return "", fmt.Errorf("%q: not a directory", filepath.Join("/", name))
	}
	return filepath.Join(root, at.name()), nil
}

// dress gives a new cache directory the mode and owner that m asks for.
func dress(dir string, m plan.Mount) error {
	var uid, gid uint32
	if m.UID != nil {
		uid = *m.UID
	}
	if m.GID != nil {
		gid = *m.GID
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return err
	}
	if m.Mode != nil {
		return unix.Chmod(dir, *m.Mode)
	}
	return nil
}
