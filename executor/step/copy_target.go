package step

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// parentMode is the mode of directories that a destination implies.
const parentMode = 0o755

// target finds the place for a file called name at dest and makes the
// directories on the way. A destination that is a directory, or ends like one,
// takes the file under its own name; any other is its new name, links followed.
// The spot's leaf is the name in its directory, there or not.
func (c *copier) target(dest, name string) (beneath.Spot, error) {
	if !validName(name) {
		return beneath.Spot{}, fmt.Errorf("%q: not a file name", name)
	}
	dir := dest
	if !strings.HasSuffix(dest, "/") && !strings.HasSuffix(dest, "/.") {
		dir = path.Dir(dest)
	}
	at, err := beneath.Resolve(c.root, dir)
	if err != nil {
		return at, err
	}
	if err := c.makeDirs(&at, len(at.Rest), c.impliedMode()); err != nil {
		at.Close()
		return at, err
	}
	if dir == dest {
		at.Leaf = name
		return at, nil
	}
	at.Close()
	if at, err = beneath.Resolve(c.root, dest); err != nil {
		return at, err
	}
	n := len(at.Rest)
	switch {
	case at.IsDir():
		at.Leaf = name
	case n > 0:
		// A dangling link led here: its directory may be missing as well.
		leaf := at.Rest[n-1]
		if err := c.makeDirs(&at, n-1, c.impliedMode()); err != nil {
			at.Close()
			return at, err
		}
		at.Leaf, at.Rest = leaf, nil
	}
	return at, nil
}

// targetDir finds the directory dest for the contents of a directory and makes
// it if it is not there.
func (c *copier) targetDir(dest string) (beneath.Spot, error) {
	at, err := beneath.Resolve(c.root, dest)
	if err != nil {
		return at, err
	}
	if at.Leaf != "" {
		at.Close()
		return at, fmt.Errorf("cannot copy to non-directory: %s", at.Name())
	}
	if err := c.makeDirs(&at, len(at.Rest), c.impliedMode()); err != nil {
		at.Close()
		return at, err
	}
	return at, nil
}

// impliedMode is the mode of directories that a destination implies: they take
// --chmod if it is a number.
func (c *copier) impliedMode() uint32 {
	if c.from.Mode != nil {
		if mode, ok := c.from.Mode.Number(); ok {
			return mode & 0o777
		}
	}
	return parentMode
}

// makeDirs makes the first n of the directories that are missing at a spot and
// goes there. They take --chown.
func (c *copier) makeDirs(at *beneath.Spot, n int, perm uint32) error {
	if at.Leaf != "" {
		return &fs.PathError{Op: "mkdir", Path: at.Name(), Err: unix.ENOTDIR}
	}
	for range n {
		name := at.Rest[0]
		fd, err := makeDir(at.FD, name, perm, c.own)
		if err != nil {
			return &fs.PathError{Op: "mkdir", Path: path.Join("/", at.Path, name), Err: err}
		}
		unix.Close(at.FD)
		at.FD, at.Path, at.Rest = fd, path.Join(at.Path, name), at.Rest[1:]
	}
	return nil
}

// makeDir makes a directory with that mode, whatever the umask is. Without an
// owner it belongs to the executor, or to the group of a set-gid parent, whose
// bit it has in any case, as directories do.
func makeDir(parent int, name string, perm uint32, own *owner) (fd int, err error) {
	if err := beneath.Retry(func() error { return unix.Mkdirat(parent, name, perm) }); err != nil {
		return -1, err
	}
	if fd, err = beneath.Openat(parent, name, beneath.OpenDir, 0); err != nil {
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
