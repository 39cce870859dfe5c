package beneath

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one resolution follows, as BuildKit.
const maxLinks = 255

// OpenDir are the flags for a directory that may be read and written below.
const OpenDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// ErrDeep is wrapped when more directories lie in each other than may.
var ErrDeep = errors.New("too many directories in each other")

// Spot is where a path leads below a root once all links are followed: to a
// directory (Rest and Leaf empty), to something else (Leaf), or to nothing
// (Rest).
type Spot struct {
	FD   int      // the deepest directory that is there; the spot owns it
	Path string   // where that directory lies below the root, without links; "" is the root
	Rest []string // what is missing below FD, outermost first
	Leaf string   // a name in FD that is there and no directory
}

// IsDir says that the path leads to a directory.
func (s Spot) IsDir() bool { return s.Leaf == "" && len(s.Rest) == 0 }

// Name is the path of the spot as seen inside the root.
func (s Spot) Name() string {
	return path.Join("/", s.Path, path.Join(s.Rest...), s.Leaf)
}

// Close lets go of the directory.
func (s *Spot) Close() {
	if s.FD >= 0 {
		unix.Close(s.FD)
		s.FD = -1
	}
}

// Resolution walks one path component by component. Every component is opened
// relative to the directory before it and never followed, so no link, however
// made, leads out of the root: links are read and walked here, absolute ones
// from the root again, and ".." stops there.
type Resolution struct {
	dirs  []int    // open directories from the root on
	names []string // names of dirs[1:]
	rest  []string
	todo  []string
	links int
	// KeepLast: a link as the last component is not followed.
	KeepLast bool
	// Hidden says that a link or a file counts as missing; nil: none does.
	Hidden func(rel string) (bool, error)
	// Deepest is how many directories may lie in each other: each is held open; 0: any
	// number.
	Deepest int
	// Flags are further ones of openat2(2) for directories: RESOLVE_NO_XDEV.
	Flags uint64
}

// Resolve finds where p leads below the directory root, with all links
// followed. What is missing is no error, a file with something below it is.
func Resolve(root int, p string) (Spot, error) {
	return (&Resolution{}).Run(root, p)
}

// Run finds where p leads below the directory root.
func (r *Resolution) Run(root int, p string) (Spot, error) {
	fd, err := Reopen(root)
	if err != nil {
		return Spot{}, err
	}
	r.dirs = []int{fd}
	r.todo = Split(p)
	leaf := ""
	for len(r.todo) > 0 && err == nil && leaf == "" {
		leaf, err = r.step()
	}
	keep := len(r.dirs) - 1
	if err != nil {
		keep = -1
	}
	s := Spot{FD: -1, Path: strings.Join(r.names, "/"), Rest: r.rest, Leaf: leaf}
	for i, fd := range r.dirs {
		if i == keep {
			s.FD = fd
			continue
		}
		unix.Close(fd)
	}
	if err != nil {
		return Spot{}, &fs.PathError{Op: "lstat", Path: path.Join("/", p), Err: err}
	}
	return s, nil
}

// Split takes a path apart.
func Split(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// step takes the next component. It returns its name if it is there and
// neither a directory nor a link to follow.
func (r *Resolution) step() (leaf string, err error) {
	name := r.todo[0]
	r.todo = r.todo[1:]
	switch {
	case name == ".":
		return "", nil
	case name == "..":
		r.up()
		return "", nil
	case len(r.rest) > 0:
		r.rest = append(r.rest, name)
		return "", nil
	}
	fd, err := OpenDirAt(r.top(), name, r.Flags)
	switch {
	case err == nil && r.Deepest > 0 && len(r.dirs) > r.Deepest:
		unix.Close(fd)
		return "", ErrDeep
	case err == nil:
		r.dirs = append(r.dirs, fd)
		r.names = append(r.names, name)
		return "", nil
	case errors.Is(err, unix.ENOENT):
		r.rest = append(r.rest, name)
		return "", nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return r.link(name)
	}
	return "", err
}

// link follows name, which is a link or a file.
func (r *Resolution) link(name string) (leaf string, err error) {
	if r.Hidden != nil {
		gone, err := r.Hidden(path.Join(path.Join(r.names...), name))
		if err != nil {
			return "", err
		}
		if gone {
			r.rest = append(r.rest, name)
			return "", nil
		}
	}
	target := ""
	if !r.KeepLast || len(r.todo) > 0 {
		target, err = Readlinkat(r.top(), name)
	}
	switch {
	case errors.Is(err, unix.EINVAL): // no link
		target = ""
	case err != nil:
		return "", err
	}
	if target == "" {
		for len(r.todo) > 0 && r.todo[0] == "." {
			r.todo = r.todo[1:]
		}
		if len(r.todo) > 0 {
			return "", unix.ENOTDIR
		}
		return name, nil
	}
	if r.links++; r.links > maxLinks {
		return "", unix.ELOOP
	}
	if target[0] == '/' {
		for len(r.names) > 0 {
			r.up()
		}
	}
	r.todo = append(Split(target), r.todo...)
	return "", nil
}

// up goes to the parent; that of the root is the root.
func (r *Resolution) up() {
	if n := len(r.rest); n > 0 {
		r.rest = r.rest[:n-1]
		return
	}
	if n := len(r.names); n > 0 {
		unix.Close(r.dirs[n])
		r.dirs, r.names = r.dirs[:n], r.names[:n-1]
	}
}

func (r *Resolution) top() int { return r.dirs[len(r.dirs)-1] }

// OpenRoot opens a directory that others are resolved below.
func OpenRoot(dir string) (int, error) {
	fd, err := Openat(unix.AT_FDCWD, dir, OpenDir, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// The system calls below are those of unix, tried again when a signal came in
// between.

// Openat never follows a link as the last component where O_NOFOLLOW is set.
// gVisor's openat does, if O_DIRECTORY is set too: openat2 does not.
func Openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	const noLink = unix.O_DIRECTORY | unix.O_NOFOLLOW
	if flags&noLink == noLink && !strings.Contains(name, "/") {
		how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
		err = Retry(func() (err error) { fd, err = unix.Openat2(dir, name, &how); return err })
		return fd, err
	}
	err = Retry(func() (err error) { fd, err = unix.Openat(dir, name, flags, mode); return err })
	return fd, err
}

// OpenDirAt opens the directory name in dir; resolve are further flags of openat2(2).
func OpenDirAt(dir int, name string, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: OpenDir, Resolve: unix.RESOLVE_NO_SYMLINKS | resolve}
	err = Retry(func() (err error) { fd, err = unix.Openat2(dir, name, &how); return err })
	return fd, err
}

// Dup duplicates an open file.
func Dup(fd int) (n int, err error) {
	err = Retry(func() (err error) { n, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); return err })
	return n, err
}

// Reopen opens a directory once more: a duplicate would go on listing where the
// first one is.
func Reopen(dir int) (int, error) { return Openat(dir, ".", OpenDir, 0) }

// Readlinkat reads a symbolic link of any length.
func Readlinkat(dir int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n := 0
		err := Retry(func() (err error) { n, err = unix.Readlinkat(dir, name, b); return err })
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// Retry calls again what a signal has interrupted.
func Retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
