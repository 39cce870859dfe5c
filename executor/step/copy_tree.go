package step

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// copyBatch is how many files of one directory a worker takes at a time.
const copyBatch = 32

// node is a directory that is being copied. It is closed when the walk has left
// it and everything in it is done.
type node struct {
	take.Dir
	parent *node
	dst    int    // open directory; -1 until it is made
	path   string // below the destination's root
	as     string // what its single file is called there; empty: as it is
	// setgid: what is made in dst does not belong to the executor's group.
	setgid  bool
	pending atomic.Int32
}

// to is what an entry is called where it is copied to.
func (n *node) to(e beneath.Entry) string { return cmp.Or(n.as, e.Name) }

// treeCopy is one walk with its workers.
type treeCopy struct {
	c     *copier
	from  take.Argument
	links *links
	jobs  chan job
	fail  context.CancelCauseFunc
	took  bool
}

// job is some files of one directory.
type job struct {
	n       *node
	entries []beneath.Entry
}

// dir copies what the directory at holds into dest. The directory dest itself
// gets the times of the source but keeps its owner and mode.
func (c *copier) dir(ctx context.Context, at beneath.Spot, dest string, from take.Argument) (took bool, err error) {
	to, err := c.targetDir(dest)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	top := &node{Dir: take.Dir{Rel: at.Path, Wanted: true}, dst: to.FD, path: to.Path}
	if top.FD, err = beneath.Reopen(at.FD); err != nil {
		to.Close()
		return false, err
	}
	top.pending.Store(1)
	n := take.Workers()
	t := &treeCopy{c: c, from: from, links: newLinks(), jobs: make(chan job, 2*n), fail: cancel}
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
	if err := unix.Fstat(n.FD, &n.Stat); err != nil {
		return &fs.PathError{Op: "stat", Path: "/" + n.Rel, Err: err}
	}
	if n.setgid, err = isSetgid(n.dst); err != nil {
		return err
	}
	return t.walk(ctx, n)
}

// walk hands the files of a directory to the workers and walks what is below.
func (t *treeCopy) walk(ctx context.Context, n *node) error {
	files, dirs, err := t.from.List(ctx, &n.Dir)
	if err != nil {
		return err
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
		sub := &node{Dir: *d, parent: n, dst: -1, path: path.Join(n.path, path.Base(d.Rel))}
		if err := t.enter(ctx, sub); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// enter opens a directory and walks it.
func (t *treeCopy) enter(ctx context.Context, n *node) (err error) {
	n.pending.Store(1)
	n.parent.pending.Add(1)
	defer t.done(ctx, n)
	if err := t.from.Enter(&n.parent.Dir, &n.Dir); err != nil {
		return &fs.PathError{Op: "open", Path: "/" + n.Rel, Err: err}
	}
	t.from.TookDir(&n.Dir)
	if !n.Lazy {
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
	name, mode := path.Base(n.path), t.c.from.ModeOf(&n.Stat)
	err := beneath.Retry(func() error { return unix.Mkdirat(n.parent.dst, name, mode&0o777) })
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return &fs.PathError{Op: "mkdir", Path: "/" + n.path, Err: err}
	}
	n.dst, err = beneath.Openat(n.parent.dst, name, beneath.OpenDir, 0)
	switch {
	case existed && (errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)):
		return fmt.Errorf("cannot copy to non-directory: /%s", n.path)
	case err != nil:
		return &fs.PathError{Op: "open", Path: "/" + n.path, Err: err}
	case existed && !n.Wanted:
		// A parent that was there keeps its owner, as with BuildKit.
		mode = n.Stat.Mode & 0o7777
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
				if err := futimes(n.dst, &n.Stat); err != nil {
					t.fail(fmt.Errorf("set times of /%s: %w", n.path, err))
				}
			}
			unix.Close(n.dst)
		}
		if n.FD >= 0 {
			unix.Close(n.FD)
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
