package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

func doCopy(ctx context.Context, op *plan.Copy, tree *rootfs.Tree, env Env) (upper string, err error) {
	mnt, err := tree.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, mnt.Discard()) }()
	src, release, err := source(ctx, op.From, env)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	// A linked copy knows nothing of what is below: its files and parents go
	// into the upper as if it were an image of its own. Like BuildKit, --chmod
	// makes it an ordinary copy.
	root := mnt.Root()
	if op.Link && op.Chmod == "" {
		root = mnt.Upper()
	}
	c, err := newCopier(root, mnt.Root(), src, op, env.Took != nil && !src.Stage)
	if err != nil {
		return "", err
	}
	c.nodes = env.Nodes
	env.tellUnknown("--chown="+op.Chown, c.unknown)
	err = errors.Join(c.all(ctx, op, env), c.close())
	if err != nil {
		return "", err
	}
	if c.from.Collects() {
		env.Took(c.from.Sum())
	}
	return mnt.Commit()
}

// source opens what a COPY reads from; release undoes it.
func source(ctx context.Context, from plan.From, env Env) (src Source, release func() error, err error) {
	nothing := func() error { return nil }
	switch from.Kind {
	case plan.FromContext:
		return env.Context, nothing, nil
	case plan.FromScratch:
		dir, err := env.Space.Mkdir()
		return Source{Root: dir}, func() error { return os.Remove(dir) }, err
	}
	if from.Kind == plan.FromNamed {
		src, err := env.named(from.Name)
		return src, nothing, err
	}
	tree := env.Stage(from.Stage.ID)
	if tree == nil {
		return src, nil, fmt.Errorf("stage %s is not there", from.Stage.Name)
	}
	root, release, err := tree.View(ctx)
	return Source{Root: root, Stage: true, Owners: true}, release, err
}

// copier copies files from one source into one root.
type copier struct {
	root   int    // destination
	rootAt string // where it lies
	from   *take.Files
	own    *owner // of everything that is made; nil: as the source
	// unknown are the names in --chown that the stage does not know.
	unknown []string
	self    owner                                                       // of new files
	nodes   func(dirfd int, name string, mode uint32, dev uint64) error // nil: mknodat

	// granted remembers what the umask leaves of a mode, plus grantKnown.
	granted [0o1000]atomic.Uint32
}

// newCopier opens root and src. Names in --chown are those of the stage at users.
// If collect is set, the copier notes what it takes.
func newCopier(root, users string, src Source, op *plan.Copy, collect bool) (c *copier, err error) {
	c = &copier{root: -1, rootAt: root, self: owner{uint32(os.Geteuid()), uint32(os.Getegid())}}
	if c.from, err = take.Open(src, selection(op), collect); err != nil {
		return nil, err
	}
	if err := c.open(users, op); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *copier) open(users string, op *plan.Copy) (err error) {
	if c.root, err = beneath.OpenRoot(c.rootAt); err != nil {
		return err
	}
	if op.Chown == "" {
		return nil
	}
	dir, err := beneath.OpenRoot(users)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	own, unknown, err := lookupOwner(dir, op.Chown)
	c.own, c.unknown = &own, unknown
	return err
}

func (c *copier) close() error {
	c.from.Close()
	if c.root >= 0 {
		unix.Close(c.root)
	}
	return nil
}

// all copies local and remote sources in their order, then here-documents.
func (c *copier) all(ctx context.Context, op *plan.Copy, env Env) error {
	unpack := op.Add
	if op.Unpack != nil {
		unpack = *op.Unpack
	}
	remotes := op.Remotes
	for i := 0; i <= len(op.Paths); i++ {
		for len(remotes) > 0 && remotes[0].After <= i {
			if err := c.remote(ctx, remotes[0], op, env); err != nil {
				return err
			}
			remotes = remotes[1:]
		}
		if i == len(op.Paths) {
			break
		}
		if err := c.path(ctx, op.Paths[i], op, unpack); err != nil {
			return err
		}
	}
	for _, f := range op.Files {
		if err := c.document(ctx, f, op.Dest); err != nil {
			return err
		}
	}
	return nil
}

// path copies what one source argument names.
func (c *copier) path(ctx context.Context, p string, op *plan.Copy, unpack bool) error {
	from, err := c.from.Argument(ctx, p)
	if err != nil {
		return err
	}
	some := false
	for _, name := range from.Names {
		from.Begin(name)
		took, err := c.one(ctx, name, op.Dest, unpack, from)
		if err != nil {
			return err
		}
		some = some || took
	}
	if from.Required != "" && !some {
		return take.NotFound(from.Required)
	}
	return nil
}

// one copies one file, or what one directory holds, to dest. It says whether
// anything was copied.
func (c *copier) one(ctx context.Context, name, dest string, unpack bool, from take.Argument) (took bool, err error) {
	at, err := c.from.Lookup(ctx, name)
	if err != nil {
		return false, err
	}
	defer at.Close()
	if at.IsDir() {
		return c.dir(ctx, at, dest, from)
	}
	if unpack {
		done, err := c.unpack(ctx, at, dest)
		if err != nil || done {
			return done, err
		}
	}
	to, err := c.target(dest, path.Base(name))
	if err != nil {
		return false, err
	}
	defer to.Close()
	n := &node{Dir: take.Dir{FD: at.FD, Rel: at.Path, Single: true}, dst: to.FD, path: to.Path, as: to.Leaf}
	if n.setgid, err = isSetgid(to.FD); err != nil {
		return false, err
	}
	w := &worker{c: c, links: newLinks()}
	return true, w.entry(n, beneath.Entry{Name: at.Leaf})
}

// document writes a here-document.
func (c *copier) document(ctx context.Context, f plan.File, dest string) error {
	now := time.Now()
	return c.place(dest, f.Name, f.Mode, func(w io.Writer) (time.Time, error) {
		_, err := w.Write(f.Data)
		return now, err
	})
}

// place makes a file that no source tree has, root's and of the given mode
// unless --chown and --chmod say otherwise. What it holds is written by fill,
// which returns its modification time.
func (c *copier) place(dest, name string, mode uint32, fill func(io.Writer) (time.Time, error)) error {
	to, err := c.target(dest, name)
	if err != nil {
		return err
	}
	defer to.Close()
	n := &node{dst: to.FD, path: to.Path}
	if n.setgid, err = isSetgid(to.FD); err != nil {
		return err
	}
	st := unix.Stat_t{Mode: unix.S_IFREG | mode}
	perm := c.from.ModeOf(&st) & 0o777
	fd, err := create(n, to.Leaf, perm)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), to.Leaf)
	defer file.Close()
	modified, err := fill(file)
	if err != nil {
		return err
	}
	st.Mtim, err = unix.TimeToTimespec(modified)
	if err != nil {
		return fmt.Errorf("modification time of %s: %w", name, err)
	}
	st.Atim = st.Mtim
	if err := c.dress(n, int(file.Fd()), perm, &st); err != nil {
		return err
	}
	return file.Close()
}

// ErrNotFound says that a copy names a source that is not there.
var ErrNotFound = take.ErrNotFound
