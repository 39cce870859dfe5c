package layer

import (
	"container/list"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Nodes makes a device node or a whiteout, as mknodat(2) does: in a directory
// that is open, under a name without slashes. A process in a user namespace
// must not make devices; it can hand the request to one that may.
type Nodes func(dirfd int, name string, mode uint32, dev uint64) error

func mknod(dirfd int, name string, mode uint32, dev uint64) error {
	return unix.Mknodat(dirfd, name, mode, int(dev))
}

const (
	maxOpen  = 256  // directories held open
	maxSteps = 5000 // parts of one path, those of its links counted
	// maxFollowed is how many links of the layers below a layer's entries may
	// lead through; every whiteout is compared with them.
	maxFollowed = 2000
)

// dir is an open directory of a tree.
type dir struct {
	path   string   // below the root, without symbolic links; "" is the root
	fd     int      //
	below  []string // where the lowers have it, highest first; nil: hidden or nowhere
	mtime  unix.Timespec
	setgid bool // what is made in it inherits its group
	dirty  bool // its entries changed, and so its time
	pins   int  // in use
	place  *list.Element
}

// tree resolves paths below a root directory as chroot would, but never lets
// the kernel follow a symbolic link. A directory that is changed through it
// keeps its modification time. Directories stay open while they are in use and
// for as long as there is room.
type tree struct {
	root *dir
	open map[string]*dir
	used *list.List // of the open directories but the root, last used first

	// overlay: the root is a lower directory in the making. Names that it
	// does not have are looked up in the layers below it.
	overlay bool
	// followed are the links of the layers below that led an entry elsewhere.
	followed map[string]struct{}

	opened  func(*dir) error // called for each directory when it is opened
	owner   [2]uint32        // of directories made on the way
	umask   uint32           // bits that a new file may lack
	nodes   Nodes
	scratch []byte
}

// newTree takes over fd, which is open for the root.
func newTree(fd int, nodes Nodes) (*tree, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("look at the root: %w", err)
	}
	if nodes == nil {
		nodes = mknod
	}
	root := &dir{fd: fd, pins: 1, mtime: mtime(&st), setgid: st.Mode&unix.S_ISGID != 0}
	return &tree{
		root: root, open: map[string]*dir{"": root}, used: list.New(), nodes: nodes,
		followed: map[string]struct{}{}, umask: 0o777, scratch: make([]byte, 1<<16),
	}, nil
}

// close sets the times of all open directories right and closes them.
func (t *tree) close() error {
	var first error
	for p, d := range t.open {
		delete(t.open, p)
		if err := d.close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (d *dir) close() error {
	defer unix.Close(d.fd)
	if !d.dirty {
		return nil
	}
	if err := setTimes(d.fd, "", d.mtime); err != nil {
		return fmt.Errorf("set time of %q: %w", d.path, err)
	}
	return nil
}

// parent opens the directory that a path names, following symbolic links within
// the root and making directories that are missing. Release it after use.
func (t *tree) parent(p string) (*dir, error) {
	if d, ok := t.open[p]; ok {
		return t.pin(d), nil
	}
	cur := t.pin(t.root)
	for steps := 0; p != ""; steps++ {
		var name string
		name, p, _ = strings.Cut(p, "/")
		next, link, err := t.step(cur, name)
		t.release(cur)
		if err != nil {
			return nil, err
		}
		if link != "" {
			p = link + "/" + p
			if link[0] == '/' {
				t.release(next)
				next = t.pin(t.root)
			}
		}
		cur = next
		if tooLong(steps, p) {
			t.release(cur)
			return nil, fmt.Errorf("%w: too many symbolic links in a path", ErrInvalid)
		}
	}
	return cur, nil
}

// tooLong bounds the way that symbolic links make of a path: the parts passed
// and what is still ahead.
func tooLong(steps int, rest string) bool { return steps > maxSteps || len(rest) > 1<<15 }

// step goes from d to name. Where that is a symbolic link it returns d again
// and the link's target. The directory it returns is pinned.
func (t *tree) step(d *dir, name string) (next *dir, link string, err error) {
	switch name {
	case "", ".":
		return t.pin(d), "", nil
	case "..":
		up := path.Dir("/" + d.path)[1:]
		next, err = t.parent(up)
		return next, "", err
	}
	if next, ok := t.open[join(d.path, name)]; ok {
		return t.pin(next), "", nil
	}
	fd, err := openSub(d.fd, name)
	switch {
	case err == nil:
		next, err = t.add(d, name, fd)
		return next, "", err
	case errors.Is(err, unix.ENOENT):
		return t.missing(d, name)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return t.nonDir(d, name)
	}
	return nil, "", fmt.Errorf("open directory %q: %w", join(d.path, name), err)
}

// add puts an open directory among the open ones and pins it.
func (t *tree) add(d *dir, name string, fd int) (*dir, error) {
	n := &dir{path: join(d.path, name), fd: fd}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && len(d.below) > 0 && !isOpaqueFd(fd) {
		n.below, err = merged(d.below, name)
	}
	if err == nil && strings.Count(n.path, "/") >= maxDepth {
		err = fmt.Errorf("%w: directories nested more than %d deep", ErrInvalid, maxDepth)
	}
	if err == nil {
		err = t.makeRoom()
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open directory %q: %w", n.path, err)
	}
	n.mtime, n.setgid = mtime(&st), st.Mode&unix.S_ISGID != 0
	t.open[n.path], n.place = n, t.used.PushFront(n)
	t.pin(n)
	if t.opened != nil {
		if err := t.opened(n); err != nil {
			t.release(n)
			return nil, err
		}
	}
	return n, nil
}

// makeRoom closes the directory that was unused for longest.
func (t *tree) makeRoom() error {
	if len(t.open) < maxOpen {
		return nil
	}
	for e := t.used.Back(); e != nil; e = e.Prev() {
		if d := e.Value.(*dir); d.pins == 0 {
			t.forget(d)
			return d.close()
		}
	}
	return nil
}

// forget takes a directory from the open ones.
func (t *tree) forget(d *dir) {
	delete(t.open, d.path)
	t.used.Remove(d.place)
}

func (t *tree) pin(d *dir) *dir {
	if d.place != nil {
		t.used.MoveToFront(d.place)
	}
	d.pins++
	return d
}

func (t *tree) release(d *dir) { d.pins-- }

// nonDir deals with a name on the way that is there and is no directory.
func (t *tree) nonDir(d *dir, name string) (*dir, string, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, "", fmt.Errorf("look at %q: %w", join(d.path, name), err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		link, err := readlink(d.fd, name, t.scratch)
		return t.pin(d), link, err
	case t.overlay && isWhiteout(&st):
		if err := unix.Unlinkat(d.fd, name, 0); err != nil {
			return nil, "", fmt.Errorf("remove whiteout of %q: %w", join(d.path, name), err)
		}
		return t.implied(d, name, true)
	}
	return nil, "", fmt.Errorf("%w: %q is not a directory", ErrInvalid, join(d.path, name))
}

// missing deals with a name on the way that is not there: the layers below may
// have a directory or a link of that name, otherwise a directory is made.
func (t *tree) missing(d *dir, name string) (*dir, string, error) {
	src, st, ok, err := lookup(d.below, name)
	if err != nil {
		return nil, "", err
	}
	if !ok {
		return t.implied(d, name, false)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		next, err := t.copyDir(d, name, src, &st)
		return next, "", err
	case unix.S_IFLNK:
		if len(t.followed) > maxFollowed {
			return nil, "", fmt.Errorf("%w: leads through too many symbolic links below", ErrLimit)
		}
		t.followed[join(d.path, name)] = struct{}{}
		link, err := readlink(unix.AT_FDCWD, src, t.scratch)
		return t.pin(d), link, err
	}
	return nil, "", fmt.Errorf("%w: %q is not a directory", ErrInvalid, join(d.path, name))
}

// implied makes a directory that no entry describes.
func (t *tree) implied(d *dir, name string, opaque bool) (*dir, string, error) {
	st := unix.Stat_t{Mode: 0o755, Uid: t.owner[0], Gid: t.owner[1]}
	next, err := t.mkdir(d, name, &st, opaque)
	if err != nil {
		return nil, "", err
	}
	if t.overlay {
		// No time is known; a fixed one keeps builds alike.
		next.mtime, next.dirty = unix.Timespec{}, true
	}
	return next, "", nil
}

// copyDir makes a directory that hides nothing of what the layers below have
// there: with the same attributes.
func (t *tree) copyDir(d *dir, name, src string, st *unix.Stat_t) (*dir, error) {
	next, err := t.mkdir(d, name, st, false)
	if err != nil {
		return nil, err
	}
	if err := copyAttrs(next.fd, src, t.scratch); err != nil {
		t.release(next)
		return nil, fmt.Errorf("copy directory %q: %w", next.path, err)
	}
	next.mtime, next.dirty = mtime(st), true
	return next, nil
}

// mkdir makes a directory with the mode and owner of st and opens it.
func (t *tree) mkdir(d *dir, name string, st *unix.Stat_t, opaque bool) (*dir, error) {
	mode := st.Mode & 0o7777
	if err := unix.Mkdirat(d.fd, name, mode); err != nil {
		return nil, fmt.Errorf("make directory %q: %w", join(d.path, name), err)
	}
	d.dirty = true
	fd, err := openSub(d.fd, name)
	if err != nil {
		return nil, fmt.Errorf("open directory %q: %w", join(d.path, name), err)
	}
	err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if opaque { // and something is there to be hidden
		dirs, lerr := merged(d.below, name)
		if opaque = len(dirs) > 0; err == nil {
			err = lerr
		}
	}
	if err == nil && opaque {
		err = unix.Fsetxattr(fd, opaqueAttr, []byte("y"), 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make directory %q: %w", join(d.path, name), err)
	}
	return t.add(d, name, fd)
}

// hideBelow makes a directory opaque.
func (t *tree) hideBelow(d *dir) error {
	if err := unix.Fsetxattr(d.fd, opaqueAttr, []byte("y"), 0); err != nil {
		return fmt.Errorf("make directory %q opaque: %w", d.path, err)
	}
	t.forgetBelow(d)
	return nil
}

// forgetBelow notes that nothing of the layers below shows in d any more.
func (t *tree) forgetBelow(d *dir) {
	for p, o := range t.open {
		if within(p, d.path) {
			o.below = nil
		}
	}
}

// within says whether path p is dir or lies below it.
func within(p, dir string) bool {
	return dir == "" || strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func readlink(fd int, name string, buf []byte) (string, error) {
	n, err := unix.Readlinkat(fd, name, buf)
	if err == nil && n == 0 {
		err = unix.ENOENT // cannot be; an empty target would mean "no link"
	}
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", name, err)
	}
	return string(buf[:n]), nil
}
