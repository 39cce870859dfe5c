package step

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one resolution follows, as BuildKit.
const maxLinks = 255

// openDir are the flags for a directory that may be read and written below.
const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// spot is where a path leads below a root once all links are followed: to a
// directory (rest and leaf empty), to something else (leaf), or to nothing
// (rest).
type spot struct {
	fd   int      // the deepest directory that is there; the spot owns it
	path string   // where that directory lies below the root, without links; "" is the root
	rest []string // what is missing below fd, outermost first
	leaf string   // a name in fd that is there and no directory
}

func (s spot) isDir() bool { return s.leaf == "" && len(s.rest) == 0 }

// name is the path of the spot as seen inside the root.
func (s spot) name() string {
	return path.Join("/", s.path, path.Join(s.rest...), s.leaf)
}

func (s *spot) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// resolution walks one path component by component. Every component is opened
// relative to the directory before it and never followed, so no link, however
// made, leads out of the root: links are read and walked here, absolute ones
// from the root again, and ".." stops there.
type resolution struct {
	dirs  []int    // open directories from the root on
	names []string // names of dirs[1:]
	rest  []string
	todo  []string
	links int
	// keepLast: a link as the last component is not followed.
	keepLast bool
	// hidden says that a link or a file counts as missing; nil: none does.
	hidden func(rel string) (bool, error)
}

// resolve finds where p leads below the directory root, with all links
// followed. What is missing is no error, a file with something below it is.
func resolve(root int, p string) (spot, error) {
	return (&resolution{}).run(root, p)
}

func (r *resolution) run(root int, p string) (spot, error) {
	fd, err := reopen(root)
	if err != nil {
		return spot{}, err
	}
	r.dirs = []int{fd}
	r.todo = split(p)
	leaf := ""
	for len(r.todo) > 0 && err == nil && leaf == "" {
		leaf, err = r.step()
	}
	keep := len(r.dirs) - 1
	if err != nil {
		keep = -1
	}
	s := spot{fd: -1, path: strings.Join(r.names, "/"), rest: r.rest, leaf: leaf}
	for i, fd := range r.dirs {
		if i == keep {
			s.fd = fd
			continue
		}
		unix.Close(fd)
	}
	if err != nil {
		return spot{}, &fs.PathError{Op: "lstat", Path: path.Join("/", p), Err: err}
	}
	return s, nil
}

func split(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// step takes the next component. It returns its name if it is there and
// neither a directory nor a link to follow.
func (r *resolution) step() (leaf string, err error) {
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
	fd, err := openat(r.top(), name, openDir, 0)
	switch {
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
func (r *resolution) link(name string) (leaf string, err error) {
	if r.hidden != nil {
		gone, err := r.hidden(path.Join(path.Join(r.names...), name))
		if err != nil {
			return "", err
		}
		if gone {
			r.rest = append(r.rest, name)
			return "", nil
		}
	}
	target := ""
	if !r.keepLast || len(r.todo) > 0 {
		target, err = readlinkat(r.top(), name)
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
	r.todo = append(split(target), r.todo...)
	return "", nil
}

// up goes to the parent; that of the root is the root.
func (r *resolution) up() {
	if n := len(r.rest); n > 0 {
		r.rest = r.rest[:n-1]
		return
	}
	if n := len(r.names); n > 0 {
		unix.Close(r.dirs[n])
		r.dirs, r.names = r.dirs[:n], r.names[:n-1]
	}
}

func (r *resolution) top() int { return r.dirs[len(r.dirs)-1] }

// openRoot opens a directory that others are resolved below.
func openRoot(dir string) (int, error) {
	fd, err := openat(unix.AT_FDCWD, dir, openDir, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// The system calls below are those of unix, tried again when a signal came in
// between.

// openat never follows a link as the last component where O_NOFOLLOW is set.
// gVisor's openat does, if O_DIRECTORY is set too: openat2 does not.
func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	const noLink = unix.O_DIRECTORY | unix.O_NOFOLLOW
	if flags&noLink == noLink && !strings.Contains(name, "/") {
		how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
		err = retry(func() (err error) { fd, err = unix.Openat2(dir, name, &how); return err })
		return fd, err
	}
	err = retry(func() (err error) { fd, err = unix.Openat(dir, name, flags, mode); return err })
	return fd, err
}

func dup(fd int) (n int, err error) {
	err = retry(func() (err error) { n, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); return err })
	return n, err
}

// reopen opens a directory once more: a duplicate would go on listing where the
// first one is.
func reopen(dir int) (int, error) { return openat(dir, ".", openDir, 0) }

func readlinkat(dir int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n := 0
		err := retry(func() (err error) { n, err = unix.Readlinkat(dir, name, b); return err })
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
