package rootfs

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// Tree is a stage's filesystem: lowers, the lowest first. One step at a time
// adds to it; it may be read meanwhile. It is safe for concurrent use.
type Tree struct {
	space *Space

	mu     sync.Mutex
	lowers []string
	view   *view // of lowers as they are; nil: not mounted
}

// Fork returns a tree that starts as t is now and goes its own way.
func (t *Tree) Fork() *Tree {
	return t.space.Tree(t.Lowers()...)
}

// Lowers returns the directories that the tree consists of, the lowest first.
func (t *Tree) Lowers() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lowers...)
}

// fitted returns lowers that fit into one mount together with further ones, at
// most spare of them. Too many are replaced for good by a mount of the lowest.
func (t *Tree) fitted(spare int) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fittedLocked(spare)
}

func (t *Tree) fittedLocked(spare int) ([]string, error) {
	for !t.space.fits(t.lowers, spare) {
		n := len(t.lowers) / 2
		if n < 2 {
			return nil, fmt.Errorf("the path of the workspace is too long: %s", t.space.dir)
		}
		for n > 2 && !t.space.fits(t.lowers[:n], 0) {
			n--
		}
		root, err := t.space.merge(t.lowers[:n])
		if err != nil {
			return nil, err
		}
		t.lowers = append([]string{root}, t.lowers[n:]...)
	}
	return append([]string(nil), t.lowers...), nil
}

// push makes upper the top of the tree. A view of what was before stays as it
// is for those who use it.
func (t *Tree) push(upper string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lowers = append(t.lowers, upper)
	t.view = nil
}

// Mount is a tree mounted for one step, writable, with a fresh upper
// directory. Either Commit or Discard ends it.
type Mount struct {
	tree  *Tree
	base  string // holds root and work
	root  string
	upper string
	done  bool
}

// Begin mounts the tree with a fresh upper directory. Each of extra is a
// further lower directory, the later the higher, for this mount only.
func (t *Tree) Begin(ctx context.Context, extra ...string) (*Mount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lowers, err := t.fitted(len(extra))
	if err != nil {
		return nil, fmt.Errorf("begin step: %w", err)
	}
	upper, err := t.space.Mkdir()
	if err != nil {
		return nil, fmt.Errorf("begin step: %w", err)
	}
	top := t.space.empty
	if n := len(lowers); n > 0 {
		top = lowers[n-1]
	}
	if err := CopyAttributes(top, upper); err != nil {
		return nil, fmt.Errorf("begin step: %w", err)
	}
	m := &Mount{tree: t, upper: upper}
	if m.base, m.root, err = t.space.mount(append(lowers, extra...), upper); err != nil {
		os.RemoveAll(upper)
		return nil, fmt.Errorf("begin step: %w", err)
	}
	return m, nil
}

// Root is the merged directory.
func (m *Mount) Root() string { return m.root }

// Upper is the directory that takes every change.
func (m *Mount) Upper() string { return m.upper }

// Commit unmounts, makes the upper the new top of the tree and returns it.
func (m *Mount) Commit() (upper string, err error) {
	if m.done {
		return "", fmt.Errorf("commit step: ended before")
	}
	m.done = true
	if err := unmount(m.base, m.root); err != nil {
		return "", fmt.Errorf("commit step: %w", err)
	}
	m.tree.push(m.upper)
	return m.upper, nil
}

// Discard unmounts and forgets all changes. After Commit it does nothing.
func (m *Mount) Discard() error {
	if m.done {
		return nil
	}
	m.done = true
	if err := unmount(m.base, m.root); err != nil {
		return fmt.Errorf("discard step: %w", err)
	}
	if err := os.RemoveAll(m.upper); err != nil {
		return fmt.Errorf("discard step: %w", err)
	}
	return nil
}

// view is a read-only mount in use by some.
type view struct {
	base, root string
	users      int
}

// View returns a directory with the whole tree, read-only. It stays as it is
// until release is called, which every caller does exactly once.
func (t *Tree) View(ctx context.Context) (root string, release func() error, err error) {
	if err := ctx.Err(); err != nil {
		return "", nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.view
	if v == nil {
		v = &view{}
		lowers, err := t.fittedLocked(0)
		if err == nil {
			v.base, v.root, err = t.space.mount(lowers, "")
		}
		if err != nil {
			return "", nil, fmt.Errorf("view stage: %w", err)
		}
		t.view = v
	}
	v.users++
	return v.root, sync.OnceValue(func() error { return t.release(v) }), nil
}

func (t *Tree) release(v *view) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	v.users--
	if v.users > 0 {
		return nil
	}
	if t.view == v {
		t.view = nil
	}
	if err := unmount(v.base, v.root); err != nil {
		return fmt.Errorf("release view: %w", err)
	}
	return nil
}
