package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// WriteTar writes the upper directory of an overlay as a layer tar and returns
// how many entries that has. The root itself gets none, as in BuildKit. Sockets
// are left out. A file whose name begins with .wh. would mean something else in
// a layer and is refused (ErrInvalid), as is what no layer can hold: more than
// 1000 directories inside each other and paths of more than 4096 bytes. More
// bytes than a layer may have that is unpacked here (Limits), holes included, are
// refused before they are written (ErrLimit).
//
// Entries come directory by directory, names in byte order, a directory before
// what is in it, an opaque marker first. A file with several links in upper is
// an entry once; its further names are hard links to the first.
func WriteTar(ctx context.Context, upper string, w io.Writer) (entries int, err error) {
	return writeTar(ctx, upper, w, PackOptions{})
}

func writeTar(ctx context.Context, upper string, w io.Writer, opt PackOptions) (int, error) {
	fd, err := unix.Open(upper, openDir, 0)
	if err != nil {
		return 0, fmt.Errorf("write layer: open %s: %w", upper, err)
	}
	defer unix.Close(fd)
	t := &tarer{
		ctx: ctx, tw: tar.NewWriter(w), clamp: opt.ClampTo,
		links: map[inode]*linked{}, buf: make([]byte, 1<<18), scratch: make([]byte, 1<<16),
		blind: len(opt.Lowers) == 0, meter: meter{lim: Limits{}.withDefaults()},
	}
	root := &level{below: reversed(opt.Lowers), known: true}
	if opt.Root {
		if err := t.root(fd); err != nil {
			return 0, fmt.Errorf("write layer: %w", err)
		}
	}
	if err := t.contents(fd, root, 0); err != nil {
		return t.entries, fmt.Errorf("write layer: %w", err)
	}
	if err := t.tw.Close(); err != nil {
		return t.entries, fmt.Errorf("write layer: %w", err)
	}
	return t.entries, nil
}

// tarer writes one layer.
type tarer struct {
	ctx     context.Context
	tw      *tar.Writer
	clamp   *time.Time
	links   map[inode]*linked
	entries int
	meter   meter
	blind   bool // the lowers are not known: every marker counts
	buf     []byte
	scratch []byte
}

type inode struct{ dev, ino uint64 }

// linked is the first name of a file that has more of them.
type linked struct {
	dir  *level
	name string
	left uint64 // names not yet seen
}

// level is a directory on the way down.
type level struct {
	up    *level
	name  string
	path  string   // "" for the root, else ending in a slash
	below []string // where the lowers have it; valid once known
	known bool
}

// root writes the owner, mode and attributes of the root itself.
func (t *tarer) root(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h := t.header("./", &st)
	h.Typeflag = tar.TypeDir
	if _, err := t.attrs(h, fd); err != nil {
		return err
	}
	return t.write(h)
}

// contents writes what is in an open directory.
func (t *tarer) contents(fd int, l *level, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: directories nested more than %d deep", ErrInvalid, maxDepth)
	}
	if err := t.ctx.Err(); err != nil {
		return err
	}
	entries, err := readDir(fd, t.scratch)
	if err != nil {
		return fmt.Errorf("%q: %w", l.path, err)
	}
	slices.SortFunc(entries, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	for _, e := range entries {
		if err := t.entry(fd, l, e, depth); err != nil {
			return named(l.path+e.name, err)
		}
	}
	return nil
}

// fileError is what went wrong with one file.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string { return fmt.Sprintf("%q: %v", shorten(e.path), e.err) }
func (e *fileError) Unwrap() error { return e.err }

// named says which file err is about, if it does not say so yet: each directory
// on the way up asks.
func named(path string, err error) error {
	if errors.As(err, new(*fileError)) {
		return err
	}
	return &fileError{path, err}
}

func (t *tarer) entry(dirfd int, l *level, e dirent, depth int) error {
	if strings.HasPrefix(e.name, whiteoutPrefix) {
		return fmt.Errorf("%w: a name that begins with .wh. cannot be in an image: layers mark deleted files so", ErrInvalid)
	}
	if len(l.path)+len(e.name) > 4096 {
		return fmt.Errorf("%w: path of more than 4096 bytes", ErrInvalid)
	}
	switch e.kind {
	case unix.DT_REG:
		return t.file(dirfd, l, e.name)
	case unix.DT_DIR:
		return t.directory(dirfd, l, e.name, depth)
	case unix.DT_SOCK:
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG: // the file system told no types
		return t.file(dirfd, l, e.name)
	case unix.S_IFDIR:
		return t.directory(dirfd, l, e.name, depth)
	case unix.S_IFSOCK:
		return nil
	}
	return t.special(dirfd, l, e.name, &st)
}

// special writes a link, a pipe, a device or the sign of a deleted file.
func (t *tarer) special(dirfd int, l *level, name string, st *unix.Stat_t) error {
	if isWhiteout(st) {
		return t.whiteout(l, name)
	}
	h := t.header(l.path+name, st)
	if t.linked(h, l, name, st) {
		return t.write(h)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = readlink(dirfd, name, t.scratch); err != nil {
			return err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return fmt.Errorf("%w: file of unknown type %o", ErrInvalid, st.Mode)
	}
	return t.write(h)
}

func (t *tarer) directory(dirfd int, l *level, name string, depth int) error {
	fd, err := openSub(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h := t.header(l.path+name+"/", &st)
	h.Typeflag = tar.TypeDir
	opaque, err := t.attrs(h, fd)
	if err == nil {
		err = t.write(h)
	}
	if err != nil {
		return err
	}
	sub := &level{up: l, name: name, path: h.Name}
	if opaque {
		below, err := t.below(sub)
		if err != nil {
			return err
		}
		if t.blind || len(below) > 0 {
			if err := t.write(t.marker(h.Name + opaqueMarker)); err != nil {
				return err
			}
		}
		sub.below, sub.known = nil, true
	}
	return t.contents(fd, sub, depth+1)
}

// below returns where the lowers have a directory.
func (t *tarer) below(l *level) ([]string, error) {
	if l.known {
		return l.below, nil
	}
	up, err := t.below(l.up)
	if err != nil {
		return nil, err
	}
	l.below, err = merged(up, l.name)
	l.known = err == nil
	return l.below, err
}

// whiteout writes the sign of a deleted file, unless the lowers are known to
// have none of that name.
func (t *tarer) whiteout(l *level, name string) error {
	if !t.blind {
		below, err := t.below(l)
		if err != nil {
			return err
		}
		if _, _, ok, err := lookup(below, name); err != nil || !ok {
			return err
		}
	}
	return t.write(t.marker(l.path + whiteoutPrefix + name))
}

func (t *tarer) marker(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func (t *tarer) file(dirfd int, l *level, name string) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("changed while it was read")
	}
	h := t.header(l.path+name, &st)
	if t.linked(h, l, name, &st) {
		return t.write(h)
	}
	if err := t.meter.file(st.Size); err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if _, err := t.attrs(h, fd); err != nil {
		return err
	}
	if err := t.write(h); err != nil {
		return err
	}
	return t.copy(fd, st.Size)
}

func (t *tarer) copy(fd int, size int64) error {
	for size > 0 {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		n, err := fdReader(fd).Read(t.buf[:min(int64(len(t.buf)), size)])
		if err == io.EOF {
			return errors.New("became shorter while it was read")
		}
		if err != nil {
			return err
		}
		if _, err := t.tw.Write(t.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// header fills in what all files have.
func (t *tarer) header(name string, st *unix.Stat_t) *tar.Header {
	ts := mtime(st)
	modified := time.Unix(ts.Sec, ts.Nsec)
	if t.clamp != nil && modified.After(*t.clamp) {
		modified = *t.clamp
	}
	return &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: modified, Format: tar.FormatPAX,
	}
}

// linked makes h a hard link if the file has already been written under another
// name.
func (t *tarer) linked(h *tar.Header, l *level, name string, st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return false
	}
	key := inode{uint64(st.Dev), st.Ino}
	first, ok := t.links[key]
	if !ok {
		t.links[key] = &linked{dir: l, name: name, left: uint64(st.Nlink) - 1}
		return false
	}
	if first.left--; first.left == 0 {
		delete(t.links, key)
	}
	h.Typeflag, h.Linkname = tar.TypeLink, first.dir.path+first.name
	return true
}

// attrs puts the extended attributes of an open file into its header.
func (t *tarer) attrs(h *tar.Header, fd int) (opaque bool, err error) {
	m, err := attrs(fd, t.scratch, func(name string) bool { return keptAttr(name) || name == opaqueAttr })
	if err != nil || len(m) == 0 {
		return false, err
	}
	opaque = m[opaqueAttr] == "y"
	delete(m, opaqueAttr)
	for name, value := range m {
		if strings.Contains(name, "=") {
			return false, fmt.Errorf("%w: extended attribute %q: a tar cannot hold a name with =", ErrInvalid, name)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+name] = value
	}
	return opaque, nil
}

func (t *tarer) write(h *tar.Header) error {
	t.entries++
	return t.tw.WriteHeader(h)
}
