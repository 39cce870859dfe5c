package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// directory makes a directory, or gives one that is there the entry's
// attributes.
func (a *applier) directory(d *dir, base string, at attributes) error {
	err := unix.Mkdirat(d.fd, base, at.mode)
	if errors.Is(err, unix.EEXIST) {
		return a.existing(d, base, at)
	}
	if err != nil {
		return err
	}
	d.dirty = true
	if !d.setgid && at.mode&(a.umask|0o7000) == 0 && len(at.xattrs) == 0 {
		return a.finish(d, base, at) // the usual case: no need to open it
	}
	n, _, err := a.step(d, base)
	if err != nil {
		return err
	}
	defer a.release(n)
	return a.setOpen(n, at)
}

// existing makes a directory under a name that is taken.
func (a *applier) existing(d *dir, base string, at attributes) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var n *dir
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		n, _, err = a.step(d, base)
	} else if err = a.clear(d, base); err == nil {
		// What was there hid the layers below, and so must the directory.
		own := unix.Stat_t{Mode: at.mode, Uid: uint32(at.uid), Gid: uint32(at.gid)}
		n, err = a.mkdir(d, base, &own, len(d.below) > 0)
	}
	if err != nil {
		return err
	}
	defer a.release(n)
	return a.setOpen(n, at)
}

// setOpen sets all attributes of an open directory, the time when it is closed:
// entries may follow.
func (a *applier) setOpen(d *dir, at attributes) error {
	err := unix.Fchown(d.fd, at.uid, at.gid)
	if err == nil {
		err = unix.Fchmod(d.fd, at.mode)
	}
	if err == nil {
		err = setAttrs(d.fd, at.xattrs)
	}
	d.mtime, d.dirty = at.mtime, true
	d.setgid = at.mode&unix.S_ISGID != 0
	return err
}

// clear removes what has a name, a directory with everything in it.
func (a *applier) clear(d *dir, base string) error {
	d.dirty = true
	err := unix.Unlinkat(d.fd, base, 0)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("replace %q: %w", join(d.path, base), err)
	}
	p := join(d.path, base)
	for q, o := range a.open {
		if within(q, p) {
			a.forget(o)
			unix.Close(o.fd)
		}
	}
	if err := removeTree(d.fd, base, a.scratch); err != nil {
		return fmt.Errorf("replace directory %q: %w", p, err)
	}
	return nil
}

// removeTree removes a directory and what is in it.
func removeTree(dirfd int, name string, buf []byte) error {
	err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	if err == nil || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := openSub(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := readDir(fd, buf)
	if err != nil {
		return err
	}
	for _, e := range names {
		err := unix.Unlinkat(fd, e.name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = removeTree(fd, e.name, buf)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// link makes a hard link. The target is a name in the archive, resolved like
// any other; its last part is not followed.
func (a *applier) link(d *dir, base, target string) error {
	name, err := a.clean(target)
	if err != nil {
		return fmt.Errorf("link target %q: %w", shorten(target), err)
	}
	err = a.linkTo(d, base, name)
	if errors.Is(err, unix.EEXIST) {
		if err := a.clear(d, base); err != nil {
			return err
		}
		err = a.linkTo(d, base, name)
		if errors.Is(err, unix.EEXIST) { // looking for it made a directory there
			err = fmt.Errorf("%w: was below what the link replaces", ErrInvalid)
		}
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", shorten(target), err)
	}
	d.dirty = true
	return nil
}

// linkTo returns EEXIST when the name is taken by another file.
func (a *applier) linkTo(d *dir, base, name string) error {
	dirname, tbase := path.Split(name)
	t, err := a.parent(strings.TrimSuffix(dirname, "/"))
	if err != nil {
		return err
	}
	defer a.release(t)
	var st, old unix.Stat_t
	err = unix.ENOENT
	if tbase != "" {
		err = unix.Fstatat(t.fd, tbase, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if errors.Is(err, unix.ENOENT) && tbase != "" {
		err = a.copyUp(t, tbase, &st)
	}
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && a.overlay && isWhiteout(&st):
		return fmt.Errorf("%w: no such file", ErrInvalid)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Errorf("%w: is a directory", ErrInvalid)
	}
	err = unix.Fstatat(d.fd, base, &old, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && old.Ino == st.Ino && old.Dev == st.Dev {
		return nil // the same file already
	}
	return unix.Linkat(t.fd, tbase, d.fd, base, 0)
}

// copyUp copies a file from the layers below into this one, so that a hard link
// can be made to it.
func (a *applier) copyUp(d *dir, base string, st *unix.Stat_t) error {
	src, low, ok, err := lookup(d.below, base)
	if err != nil {
		return err
	}
	if !ok {
		return unix.ENOENT
	}
	at := attributes{mode: low.Mode & 0o7777, uid: int(low.Uid), gid: int(low.Gid), mtime: mtime(&low)}
	switch low.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = a.copyFile(d, base, src, at)
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(unix.AT_FDCWD, src, a.scratch); err == nil {
			err = a.symlink(d, base, target, at)
		}
	default:
		err = fmt.Errorf("%w: hard link to a special file of a layer below is not supported", ErrInvalid)
	}
	if err != nil {
		return err
	}
	return unix.Fstatat(d.fd, base, st, unix.AT_SYMLINK_NOFOLLOW)
}

func (a *applier) copyFile(d *dir, base, src string, at attributes) error {
	fd, err := unix.Open(src, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := fdReader(fd)
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := a.meter.file(st.Size); err != nil {
		return err
	}
	if at.xattrs, err = attrs(fd, a.scratch, storedAttr); err != nil {
		return err
	}
	return a.file(d, base, at, f, st.Size)
}
