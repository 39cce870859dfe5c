package step

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// parentMode is the mode of directories that a destination implies.
const parentMode = 0o755

// target finds the place for a file called name at dest and makes the
// directories on the way. A destination that is a directory, or ends like one,
// takes the file under its own name; any other is its new name, links followed.
// The spot's leaf is the name in its directory, there or not.
func (c *copier) target(dest, name string) (spot, error) {
	if !validName(name) {
		return spot{}, fmt.Errorf("%q: not a file name", name)
	}
	dir := dest
	if !strings.HasSuffix(dest, "/") && !strings.HasSuffix(dest, "/.") {
		dir = path.Dir(dest)
	}
	at, err := resolve(c.root, dir)
	if err != nil {
		return at, err
	}
	if err := c.makeDirs(&at, len(at.rest), c.impliedMode()); err != nil {
		at.close()
		return at, err
	}
	if dir == dest {
		at.leaf = name
		return at, nil
	}
	at.close()
	if at, err = resolve(c.root, dest); err != nil {
		return at, err
	}
	n := len(at.rest)
	switch {
	case at.isDir():
		at.leaf = name
	case n > 0:
		// A dangling link led here: its directory may be missing as well.
		leaf := at.rest[n-1]
		if err := c.makeDirs(&at, n-1, c.impliedMode()); err != nil {
			at.close()
			return at, err
		}
		at.leaf, at.rest = leaf, nil
	}
	return at, nil
}

// targetDir finds the directory dest for the contents of a directory and makes
// it if it is not there.
func (c *copier) targetDir(dest string) (spot, error) {
	at, err := resolve(c.root, dest)
	if err != nil {
		return at, err
	}
	if at.leaf != "" {
		at.close()
		return at, fmt.Errorf("cannot copy to non-directory: %s", at.name())
	}
	if err := c.makeDirs(&at, len(at.rest), c.impliedMode()); err != nil {
		at.close()
		return at, err
	}
	return at, nil
}

// impliedMode is the mode of directories that a destination implies: they take
// --chmod if it is a number.
func (c *copier) impliedMode() uint32 {
	if c.mode != nil && c.mode.octal {
		return c.mode.mode & 0o777
	}
	return parentMode
}

// makeDirs makes the first n of the directories that are missing at a spot and
// goes there. They take --chown.
func (c *copier) makeDirs(at *spot, n int, perm uint32) error {
	if at.leaf != "" {
		return &fs.PathError{Op: "mkdir", Path: at.name(), Err: unix.ENOTDIR}
	}
	for range n {
		name := at.rest[0]
		fd, err := makeDir(at.fd, name, perm, c.own)
		if err != nil {
			return &fs.PathError{Op: "mkdir", Path: path.Join("/", at.path, name), Err: err}
		}
		unix.Close(at.fd)
		at.fd, at.path, at.rest = fd, path.Join(at.path, name), at.rest[1:]
	}
	return nil
}

// makeDir makes a directory with that mode, whatever the umask is. Without an
// owner it belongs to the executor, or to the group of a set-gid parent, whose
// bit it has in any case, as directories do.
func makeDir(parent int, name string, perm uint32, own *owner) (fd int, err error) {
	if err := retry(func() error { return unix.Mkdirat(parent, name, perm) }); err != nil {
		return -1, err
	}
	if fd, err = openat(parent, name, openDir, 0); err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && own != nil {
		err = unix.Fchown(fd, int(own.uid), int(own.gid))
	}
	if err == nil {
		err = unix.Fchmod(fd, perm|st.Mode&setGID)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// validName says that s can be the name of one file.
func validName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}
