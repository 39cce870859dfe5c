package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// addMount prepares one --mount: its source, kept until the command has ended,
// and what the child is told of it.
func (r *run) addMount(ctx context.Context, m plan.Mount) error {
	switch m.Type {
	case "bind", "":
		return r.addBind(ctx, m)
	case "tmpfs":
		r.config.Mounts = append(r.config.Mounts, childMount{Target: m.Target, Size: m.Size})
		return nil
	case "cache":
		return r.addCache(ctx, m)
	case "secret":
		if m.Required {
			return fmt.Errorf("secret %s: not found", m.ID)
		}
		return nil
	case "ssh":
		if m.Required {
			return fmt.Errorf("no SSH key %q forwarded from the client", m.ID)
		}
		return nil
	}
	return fmt.Errorf("RUN --mount=type=%s: not supported yet", m.Type)
}

// addBind binds a part of the context or of a stage. What the command writes
// there, if it may, is thrown away.
func (r *run) addBind(ctx context.Context, m plan.Mount) error {
	tree, err := r.source(m.From)
	if err != nil {
		return err
	}
	var root string
	if m.ReadOnly {
		view, release, err := tree.View(ctx)
		if err != nil {
			return err
		}
		r.undo = append(r.undo, release)
		root = view
	} else {
		scratch, err := tree.Fork().Begin(ctx)
		if err != nil {
			return err
		}
		r.undo = append(r.undo, scratch.Discard)
		root = scratch.Root()
	}
	return r.bind(root, m.Source, childMount{Target: m.Target, ReadOnly: m.ReadOnly})
}

// bind adds the mount of what source is below root.
func (r *run) bind(root, source string, m childMount) error {
	dir, err := openRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	at, err := resolve(dir, source)
	if errors.Is(err, unix.ENOTDIR) || err == nil && len(at.rest) > 0 {
		err = fmt.Errorf("%q: not found", filepath.Join("/", source))
	}
	if err != nil {
		return fmt.Errorf("RUN --mount: %w", err)
	}
	defer at.close()
	// Free of links, and nobody changes it while it is mounted.
	m.Source = filepath.Join(root, at.name())
	m.Dir = at.isDir()
	r.config.Mounts = append(r.config.Mounts, m)
	return nil
}

// source is the tree that a mount is taken from.
func (r *run) source(from plan.From) (*rootfs.Tree, error) {
	switch from.Kind {
	case plan.FromContext:
		return r.contextTree()
	case plan.FromScratch:
		return r.env.Space.Tree(), nil
	}
	tree := r.env.Stage(from.Stage.ID)
	if tree == nil {
		return nil, fmt.Errorf("RUN --mount: stage %q is not there", from.Stage.Name)
	}
	return tree, nil
}

// contextTree is the context as a tree, with what the ignore file hides taken
// away by a layer of whiteouts.
func (r *run) contextTree() (*rootfs.Tree, error) {
	if r.env.Context.Excluded == nil {
		return r.env.Space.Tree(r.env.Context.Root), nil
	}
	mask, err := r.env.Space.Mkdir()
	if err != nil {
		return nil, err
	}
	r.undo = append(r.undo, func() error { return os.RemoveAll(mask) })
	if err := rootfs.CopyAttributes(r.env.Context.Root, mask); err != nil {
		return nil, err
	}
	if err := maskExcluded(r.env.Context, mask); err != nil {
		return nil, fmt.Errorf("hide what the ignore file excludes: %w", err)
	}
	return r.env.Space.Tree(r.env.Context.Root, mask), nil
}

// maskExcluded makes a whiteout in mask for everything that src excludes.
func maskExcluded(src Source, mask string) error {
	return filepath.WalkDir(src.Root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == src.Root {
			return err
		}
		rel, err := filepath.Rel(src.Root, p)
		if err != nil {
			return err
		}
		// A directory is hidden only if all below it is; else its own entries
		// are looked at.
		hidden, err := src.Excluded(filepath.ToSlash(rel), d.IsDir())
		if err != nil || !hidden {
			return err
		}
		if err := whiteout(src.Root, mask, rel); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// whiteout hides rel of root in mask, whose directories look like those of root.
func whiteout(root, mask, rel string) error {
	var made []string
	for p := filepath.Dir(rel); p != "."; p = filepath.Dir(p) {
		if _, err := os.Lstat(filepath.Join(mask, p)); err == nil {
			break
		}
		made = append(made, p)
	}
	for i := len(made) - 1; i >= 0; i-- {
		if err := os.Mkdir(filepath.Join(mask, made[i]), 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mknod(filepath.Join(mask, rel), unix.S_IFCHR, 0); err != nil {
		return &fs.PathError{Op: "mknod", Path: rel, Err: err}
	}
	for _, p := range made {
		if err := rootfs.CopyAttributes(filepath.Join(root, p), filepath.Join(mask, p)); err != nil {
			return err
		}
	}
	return nil
}
