package step

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
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
		return r.addSecret(ctx, m)
	case "ssh":
		return r.addAgent(ctx, m)
	}
	return fmt.Errorf("RUN --mount=type=%s: not supported yet", m.Type)
}

// addBind binds a part of the context or of a stage. What the command writes
// there, if it may, is thrown away.
func (r *run) addBind(ctx context.Context, m plan.Mount) error {
	tree, err := r.source(ctx, m.From, m.Source)
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
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	at, err := beneath.Resolve(dir, source)
	if errors.Is(err, unix.ENOTDIR) || err == nil && len(at.Rest) > 0 {
		err = fmt.Errorf("%q: not found", filepath.Join("/", source))
	}
	if err != nil {
		return fmt.Errorf("RUN --mount: %w", err)
	}
	defer at.Close()
	// Free of links, and nobody changes it while it is mounted.
	m.Source = filepath.Join(root, at.Name())
	m.Dir = at.IsDir()
	r.config.Mounts = append(r.config.Mounts, m)
	return nil
}

// source is the tree that a mount is taken from.
func (r *run) source(ctx context.Context, from plan.From, source string) (*rootfs.Tree, error) {
	switch from.Kind {
	case plan.FromContext:
		return r.contextTree(ctx, r.env.Context, "context "+source, source)
	case plan.FromNamed:
		files, err := r.env.named(from.Name)
		if err != nil {
			return nil, err
		}
		return r.contextTree(ctx, files, fmt.Sprintf("context %q %s", from.Name, source), source)
	case plan.FromScratch:
		return r.env.Space.Tree(), nil
	}
	tree := r.env.Stage(from.Stage.ID)
	if tree == nil {
		return nil, fmt.Errorf("RUN --mount: stage %q is not there", from.Stage.Name)
	}
	return tree, nil
}

// contextTree is a part of a context as a tree: a copy in the workspace, made
// once under the name. It has what COPY would make of it, root's files without those that the
// ignore file hides, where the context itself shows the owners of some machine.
func (r *run) contextTree(ctx context.Context, files Source, name, source string) (*rootfs.Tree, error) {
	kept, err := r.env.Space.Keep(name, func() (string, func() error, error) {
		dir, err := Materialize(ctx, files, source, r.env)
		return dir, nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("RUN --mount: %w", err)
	}
	return r.env.Space.Tree(kept.Dir()), nil
}

// Materialize copies what is at path in a context into a new directory, to the
// same path, as COPY would. Of env it needs Space and Nodes.
func Materialize(ctx context.Context, files Source, path string, env Env) (dir string, err error) {
	if dir, err = env.Space.Mkdir(); err != nil {
		return "", err
	}
	op := &plan.Copy{Paths: []string{literal(path)}, Dest: path}
	c, err := newCopier(dir, dir, files, op, false)
	if err != nil {
		return "", err
	}
	c.nodes = env.Nodes
	return dir, errors.Join(c.all(ctx, op, env), c.close())
}

// literal is a pattern that matches name and nothing else.
func literal(name string) string {
	if !strings.ContainsAny(name, "*?[") {
		return name // not taken as a pattern
	}
	return strings.NewReplacer(`\`, `\\`, "*", "[*]", "?", "[?]", "[", "[[]").Replace(name)
}
