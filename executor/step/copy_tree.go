package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// copyBatch is how many files of one directory a worker takes at a time.
const copyBatch = 32

// copyWorkers is how many files are copied at once: opening a file on a host
// mount takes its time, but more threads than processors cost more in gVisor
// than they win.
func copyWorkers() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

// node is a directory that is being copied. It is closed when the walk has left
// it and everything in it is done.
type node struct {
	parent   *node
	src, dst int    // open directories; dst is -1 until it is made
	lazy     bool   // it is made when something in it is taken, not before
	srcRel   string // below the source's root
	sub      string // below the directory that is copied
	path     string // below the destination's root
	st       unix.Stat_t
	matches  matches
	// wanted: it is copied for itself, not only as the parent of something.
	wanted bool
	// setgid: what is made in dst does not belong to the executor's group.
	setgid  bool
	pending atomic.Int32
}

// treeCopy is one walk with its workers.
type treeCopy struct {
	c      *copier
	filter filter
	links  *links
	jobs   chan job
	fail   context.CancelCauseFunc
	took   bool
}

// job is some files of one directory.
type job struct {
	n       *node
	entries []entry
}

// dir copies what the directory at holds into dest. The directory dest itself
// gets the times of the source but keeps its owner and mode.
func (c *copier) dir(ctx context.Context, at spot, dest string, f filter) (took bool, err error) {
	to, err := c.targetDir(dest)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	top := &node{dst: to.fd, srcRel: at.path, path: to.path, wanted: true}
	if top.src, err = reopen(at.fd); err != nil {
		to.close()
		return false, err
	}
	top.pending.Store(1)
	n := copyWorkers()
	t := &treeCopy{c: c, filter: f, links: newLinks(), jobs: make(chan job, 2*n), fail: cancel}
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() { t.work(ctx) })
	}
	err = t.top(ctx, top)
	if err != nil {
		cancel(err)
	}
	t.done(ctx, top)
	close(t.jobs)
	workers.Wait()
	return t.took, context.Cause(ctx)
}

// top reads the attributes of the outermost directory and walks it.
func (t *treeCopy) top(ctx context.Context, n *node) (err error) {
	if err := unix.Fstat(n.src, &n.st); err != nil {
		return &fs.PathError{Op: "stat", Path: "/" + n.srcRel, Err: err}
	}
	if n.setgid, err = isSetgid(n.dst); err != nil {
		return err
	}
	return t.walk(ctx, n)
}

// walk hands the files of a directory to the workers and walks what is below.
func (t *treeCopy) walk(ctx context.Context, n *node) error {
	entries, err := readDir(n.src, n.srcRel)
	if err != nil {
		return err
	}
	var dirs []*node
	files := entries[:0]
	for _, e := range entries {
		take, sub, err := t.judge(n, e)
		switch {
		case err != nil:
			return err
		case sub != nil:
			sub.lazy = !take
			dirs = append(dirs, sub)
		case take:
			files = append(files, e)
		}
	}
	if len(files) > 0 {
		if err := t.make(n); err != nil {
			return err
		}
	}
	for len(files) > 0 {
		k := min(copyBatch, len(files))
		n.pending.Add(1)
		t.took = true
		t.jobs <- job{n, files[:k]}
		files = files[k:]
	}
	for _, d := range dirs {
		if err := t.enter(ctx, d); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// judge says whether an entry is taken; for a directory that has to be looked
// into it returns its node.
func (t *treeCopy) judge(n *node, e entry) (take bool, sub *node, err error) {
	dir := e.typ == unix.S_IFDIR
	rel := path.Join(n.srcRel, e.name)
	if dir {
		if all, err := t.c.hides(rel, true); err != nil || all {
			return false, nil, err
		}
	}
	hide, err := t.c.hides(rel, false)
	if err != nil || hide && !dir {
		return false, nil, err
	}
	wanted, below, m, err := t.filter.judge(path.Join(n.sub, e.name), n.matches)
	switch {
	case err != nil:
		return false, nil, err
	case !dir:
		// A socket means nothing without the process that listens.
		return wanted && e.typ != unix.S_IFSOCK, nil, nil
	case !wanted && !below:
		return false, nil, nil
	}
	return wanted && !hide, &node{
		parent: n, src: -1, dst: -1, srcRel: rel, sub: path.Join(n.sub, e.name),
		path: path.Join(n.path, e.name), matches: m, wanted: wanted,
	}, nil
}

// enter opens a directory and walks it.
func (t *treeCopy) enter(ctx context.Context, n *node) (err error) {
	n.pending.Store(1)
	n.parent.pending.Add(1)
	defer t.done(ctx, n)
	if n.src, err = openat(n.parent.src, base(n.srcRel), openDir, 0); err == nil {
		err = unix.Fstat(n.src, &n.st)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + n.srcRel, Err: err}
	}
	if !n.lazy {
		if err := t.make(n); err != nil {
			return err
		}
	}
	return t.walk(ctx, n)
}

// make makes the directory of a node and those above it, if they are not there.
func (t *treeCopy) make(n *node) error {
	if n.dst >= 0 {
		return nil
	}
	if err := t.make(n.parent); err != nil {
		return err
	}
	t.took = true
	name, mode := base(n.path), t.c.modeOf(&n.st)
	err := retry(func() error { return unix.Mkdirat(n.parent.dst, name, mode&0o777) })
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return &fs.PathError{Op: "mkdir", Path: "/" + n.path, Err: err}
	}
	n.dst, err = openat(n.parent.dst, name, openDir, 0)
	switch {
	case existed && (errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)):
		return fmt.Errorf("cannot copy to non-directory: /%s", n.path)
	case err != nil:
		return &fs.PathError{Op: "open", Path: "/" + n.path, Err: err}
	case existed && !n.wanted:
		// A parent that was there keeps its owner, as with BuildKit.
		mode = n.st.Mode & 0o7777
		err = unix.Fchmod(n.dst, mode)
	default:
		err = t.c.dressDir(n, mode, existed)
	}
	if err != nil {
		return fmt.Errorf("set attributes of /%s: %w", n.path, err)
	}
	n.setgid = mode&setGID != 0
	return nil
}

// done notes that one thing in a directory, or its own listing, is finished.
// The last one sets the directory's times, which everything before has changed.
func (t *treeCopy) done(ctx context.Context, n *node) {
	for ; n != nil && n.pending.Add(-1) == 0; n = n.parent {
		if n.dst >= 0 {
			if ctx.Err() == nil {
				if err := futimes(n.dst, &n.st); err != nil {
					t.fail(fmt.Errorf("set times of /%s: %w", n.path, err))
				}
			}
			unix.Close(n.dst)
		}
		if n.src >= 0 {
			unix.Close(n.src)
		}
	}
}

// work copies files until there are no more jobs.
func (t *treeCopy) work(ctx context.Context) {
	w := &worker{c: t.c, links: t.links}
	for j := range t.jobs {
		for _, e := range j.entries {
			if ctx.Err() != nil {
				break
			}
			if err := w.entry(j.n, e); err != nil {
				t.fail(err)
			}
		}
		t.done(ctx, j.n)
	}
}
