package step

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

const (
	// copyBuffer is read and written at once, in bytes.
	copyBuffer = 1 << 20
	// oneCall is the size in bytes up to which the kernel is asked to copy. gVisor
	// copies through that much at a time, so a large file goes faster through our
	// own buffer: 1.8 GB/s against 1.1 seen.
	oneCall = 64 << 10
	// hole is the smallest run of zeros that is left out of a sparse file.
	hole = 64 << 10
	// grantKnown marks an entry of copier.granted as filled in.
	grantKnown = 1 << 16
)

// worker copies files, one at a time.
type worker struct {
	c     *copier
	links *links
	buf   []byte
	hash  hash.Hash // of the contents that are copied; nil: nobody wants it
	attrs take.Attributes
}

// entry copies one thing that is no directory.
func (w *worker) entry(n *node, e beneath.Entry) error {
	var err error
	switch e.Type {
	case unix.S_IFLNK:
		err = w.symlink(n, e)
	case unix.S_IFREG, 0:
		err = w.regular(n, e)
	default:
		err = w.special(n, e)
	}
	if err != nil {
		return fmt.Errorf("copy /%s: %w", path.Join(n.Rel, e.Name), err)
	}
	return nil
}

// regular copies a file; what turns out to be something else goes to special.
func (w *worker) regular(n *node, e beneath.Entry) error {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	var st unix.Stat_t
	if e.Type == 0 {
		// Named itself: a device must not be opened to see what it is.
		if err := unix.Fstatat(n.FD, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return w.special(n, e)
		}
	}
	in, err := beneath.Openat(n.FD, e.Name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	if err := unix.Fstat(in, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("is no longer a regular file")
	}
	if st.Nlink < 2 {
		return w.contents(n, e, in, &st)
	}
	first, done := w.links.first(&st)
	if first == nil {
		err := w.contents(n, e, in, &st)
		done(path.Join(n.path, n.to(e)), err)
		return err
	}
	linked, err := w.link(n, n.to(e), first.path)
	if linked {
		w.c.from.Took(&n.Dir, e, &st, "") // as the first
	}
	if err != nil || linked {
		return err
	}
	return w.contents(n, e, in, &st)
}

// contents makes the file and fills it from in.
func (w *worker) contents(n *node, e beneath.Entry, in int, st *unix.Stat_t) error {
	perm := w.c.from.ModeOf(st) & 0o777
	out, err := create(n, n.to(e), perm)
	if err != nil {
		return err
	}
	if w.c.from.Collects() {
		w.hash = sha256.New()
	}
	err = w.data(out, in, st)
	if err == nil {
		err = w.c.dress(n, out, perm, st)
	}
	if err == nil && w.c.from.Stage {
		// After the owner: changing it drops capabilities.
		err = w.xattrs(out, in)
	}
	if e := unix.Close(out); err == nil {
		err = e
	}
	if w.hash != nil && err == nil {
		w.c.from.Took(&n.Dir, e, st, string(w.hash.Sum(nil)))
	}
	return err
}

// data copies what is in a file. One call does it for most files: in gVisor that
// is cheaper than a read and a write.
func (w *worker) data(out, in int, st *unix.Stat_t) error {
	sparse := st.Blocks*512 < st.Size && st.Size > hole
	if !sparse && st.Size <= oneCall && w.hash == nil {
		at, err := copyRange(out, in, st.Size)
		if err == nil || at > 0 || !canReadInstead(err) {
			return err
		}
	}
	return w.readWrite(out, in, st.Size, sparse)
}

// copyRange copies up to size bytes and returns how many there were.
func copyRange(out, in int, size int64) (at int64, err error) {
	for at < size {
		k := 0
		err := beneath.Retry(func() (err error) {
			k, err = unix.CopyFileRange(in, nil, out, nil, int(size-at), 0)
			return err
		})
		if err != nil {
			return at, err
		}
		if k == 0 {
			break // it has become shorter
		}
		at += int64(k)
	}
	return at, nil
}

// canReadInstead says that copy_file_range(2) does not do these two files.
func canReadInstead(err error) bool {
	for _, e := range []error{unix.ENOSYS, unix.EXDEV, unix.EINVAL, unix.EPERM, unix.EOPNOTSUPP, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// readWrite copies through the worker's buffer, and in a sparse file leaves
// holes where there are zeros.
func (w *worker) readWrite(out, in int, size int64, sparse bool) error {
	if w.buf == nil {
		w.buf = make([]byte, copyBuffer)
	}
	at := int64(0)
	for {
		k, err := read(in, w.buf)
		if err != nil {
			return err
		}
		if err := write(out, w.buf[:k], at, sparse); err != nil {
			return err
		}
		if w.hash != nil {
			w.hash.Write(w.buf[:k])
		}
		at += int64(k)
		if k == 0 || k < len(w.buf) && at >= size {
			break
		}
	}
	if sparse {
		return unix.Ftruncate(out, at)
	}
	return nil
}

// write writes b at the end of out, which is at byte at; in a sparse file
// zeros are left out.
func write(out int, b []byte, at int64, sparse bool) error {
	for len(b) > 0 {
		part := b
		if sparse {
			part = b[:min(hole, len(b))]
			if allZero(part) {
				b, at = b[len(part):], at+int64(len(part))
				continue
			}
		}
		k := 0
		err := beneath.Retry(func() (err error) {
			if sparse {
				k, err = unix.Pwrite(out, part, at)
			} else {
				k, err = unix.Write(out, part)
			}
			return err
		})
		if err != nil {
			return err
		}
		if k == 0 {
			return io.ErrShortWrite
		}
		b, at = b[k:], at+int64(k)
	}
	return nil
}

func read(fd int, b []byte) (n int, err error) {
	err = beneath.Retry(func() (err error) { n, err = unix.Read(fd, b); return err })
	return n, err
}

func allZero(b []byte) bool {
	var zero [4096]byte
	for len(b) > 0 {
		k := min(len(b), len(zero))
		if !bytes.Equal(b[:k], zero[:k]) {
			return false
		}
		b = b[k:]
	}
	return true
}

func (w *worker) symlink(n *node, e beneath.Entry) error {
	target, err := beneath.Readlinkat(n.FD, e.Name)
	if err != nil {
		return err
	}
	err = replace(n, n.to(e), func() error { return unix.Symlinkat(target, n.dst, n.to(e)) })
	if err != nil {
		return err
	}
	w.c.from.Took(&n.Dir, e, &unix.Stat_t{Mode: unix.S_IFLNK}, target)
	return w.dressAt(n, e)
}

// special copies a FIFO or device. A socket is left out: it means nothing
// without the process that listens.
func (w *worker) special(n *node, e beneath.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(n.FD, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFLNK:
		return w.symlink(n, e)
	}
	w.c.from.Took(&n.Dir, e, &st, "")
	mode := w.c.from.ModeOf(&st)
	err := replace(n, n.to(e), func() error {
		kind := st.Mode&unix.S_IFMT | mode&0o777
		if w.c.nodes != nil && kind&unix.S_IFMT != unix.S_IFIFO {
			return w.c.nodes(n.dst, n.to(e), kind, uint64(st.Rdev))
		}
		return unix.Mknodat(n.dst, n.to(e), kind, int(st.Rdev))
	})
	if err != nil {
		return err
	}
	return w.dressAt(n, e)
}

// link makes name a hard link to a file that this copy made before. Where that
// cannot be done the caller copies.
func (w *worker) link(n *node, name, first string) (bool, error) {
	if first == "" || len(first) >= unix.PathMax {
		return false, nil
	}
	// Every component of first was made or checked by this copy.
	err := replace(n, name, func() error { return unix.Linkat(w.c.root, first, n.dst, name, 0) })
	if errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) {
		return false, nil
	}
	return err == nil, err
}

// create makes a file that was not there, in place of anything but a directory.
func create(n *node, name string, perm uint32) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	err = replace(n, name, func() (err error) { fd, err = unix.Openat(n.dst, name, flags, perm); return err })
	return fd, err
}

// replace runs a call that makes name, and once more after removing what was
// there: mostly nothing is, and nobody has to look.
func replace(n *node, name string, call func() error) error {
	err := beneath.Retry(call)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	err = unix.Unlinkat(n.dst, name, 0)
	if errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("cannot replace to directory /%s with file", path.Join(n.path, name))
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: "/" + path.Join(n.path, name), Err: err}
	}
	return beneath.Retry(call)
}

// links are the files with several names that one copy has met.
type links struct {
	mu   sync.Mutex
	seen map[take.Inode]*linked
}

type linked struct {
	ready chan struct{} // closed when path is final
	path  string        // below the destination's root; empty: it failed
}

func newLinks() *links { return &links{seen: map[take.Inode]*linked{}} }

// first returns the copy of a file that another name of it has led to, when
// that is there. For the first name it is nil, and done must be called.
func (l *links) first(st *unix.Stat_t) (first *linked, done func(path string, err error)) {
	l.mu.Lock()
	key := take.Inode{Dev: uint64(st.Dev), Ino: st.Ino}
	if e := l.seen[key]; e != nil {
		l.mu.Unlock()
		<-e.ready
		return e, nil
	}
	e := &linked{ready: make(chan struct{})}
	l.seen[key] = e
	l.mu.Unlock()
	return nil, func(path string, err error) {
		if err == nil {
			e.path = path
		}
		close(e.ready)
	}
}
