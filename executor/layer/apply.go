package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// applier makes what the entries of an archive describe.
type applier struct {
	*tree
	meter *meter
	chown *[2]uint32 // owner of everything, instead of the archive's
	// rootHidden are the lowers that an opaque marker in the root hides.
	rootHidden []string
	// lastMissing is the last directory that a whiteout had to wait for; those
	// of one directory come together.
	lastMissing rawPath
	// pending are whiteouts by the directory they wait for; "" is its all.
	pending     map[string][]string
	pendingSize int
	buf         []byte
}

// attributes are what an entry says about a file beside its contents.
type attributes struct {
	mode     uint32 // permissions with set-id and sticky bits
	uid, gid int
	mtime    unix.Timespec
	xattrs   map[string]string
}

// all applies every entry of an archive in turn, the last of a name wins.
func (a *applier) all(ctx context.Context, r *ahead) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && r.failure() != nil {
			return r.failure()
		}
		if err != nil { // the stream is in order, what it says is not
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := a.entry(h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
}

// shorten keeps a hostile name from filling the message.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// clean brings a name from an archive into the form a/b/c, below the root. A
// layer's name must not point above it; in an archive of ADD the root is as far
// up as one gets, as in BuildKit, which unpacks under chroot.
func (a *applier) clean(name string) (string, error) {
	if len(name) > a.meter.lim.PathLen {
		return "", fmt.Errorf("%w: name of more than %d bytes", ErrLimit, a.meter.lim.PathLen)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("%w: NUL in a name", ErrInvalid)
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if a.overlay && (p == ".." || strings.HasPrefix(p, "../")) {
		return "", fmt.Errorf("%w: leads out of the root", ErrInvalid)
	}
	return path.Clean("/" + p)[1:], nil
}

func (a *applier) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return a.meter.entry(0)
	}
	if err := a.meter.entry(h.Size); err != nil {
		return err
	}
	name, err := a.clean(h.Name)
	if err != nil {
		return err
	}
	at, err := a.attributes(h)
	if err != nil {
		return err
	}
	if name == "" {
		return a.rootEntry(h, at)
	}
	if a.overlay {
		if done, err := a.marker(h, name); done || err != nil {
			return err
		}
	}
	dirname, base := path.Split(name)
	d, err := a.parent(strings.TrimSuffix(dirname, "/"))
	if err != nil {
		return err
	}
	defer a.release(d)
	return a.make(d, base, h, at, r)
}

// make makes one file of any type.
func (a *applier) make(d *dir, base string, h *tar.Header, at attributes, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return a.file(d, base, at, r, h.Size)
	case tar.TypeDir:
		return a.directory(d, base, at)
	case tar.TypeSymlink:
		return a.symlink(d, base, h.Linkname, at)
	case tar.TypeLink:
		return a.link(d, base, h.Linkname)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return a.node(d, base, h, at)
	}
	return fmt.Errorf("%w: entry of type %q is not supported", ErrInvalid, string(h.Typeflag))
}

// attributes reads an entry's and checks that they can be set.
func (a *applier) attributes(h *tar.Header) (attributes, error) {
	at := attributes{mode: uint32(h.Mode & 0o7777), uid: h.Uid, gid: h.Gid, mtime: timespec(h.ModTime)}
	if a.chown != nil {
		at.uid, at.gid = int(a.chown[0]), int(a.chown[1])
	}
	// -1 would mean "leave as it is" to chown.
	const most = 1<<32 - 2
	if at.uid < 0 || at.uid > most || at.gid < 0 || at.gid > most {
		return at, fmt.Errorf("%w: owner %d:%d is out of range", ErrInvalid, h.Uid, h.Gid)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !storedAttr(name) {
			continue
		}
		if at.xattrs == nil {
			at.xattrs = map[string]string{}
		}
		at.xattrs[name] = value
	}
	return at, nil
}

const paxXattr = "SCHILY.xattr."

// rootEntry deals with an entry for the root itself. In a layer it must be a
// directory and gives the root its attributes; ADD leaves its destination alone.
func (a *applier) rootEntry(h *tar.Header, at attributes) error {
	if !a.overlay {
		return nil
	}
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root is not a directory", ErrInvalid)
	}
	return a.setOpen(a.root, at)
}

// file makes a regular file. Blocks of zeros become holes.
func (a *applier) file(d *dir, base string, at attributes, r io.Reader, size int64) error {
	fd, err := a.create(d, base, at.mode)
	if err != nil {
		return err
	}
	err = a.fill(fd, r, size)
	if err == nil && (at.uid != 0 || at.gid != 0 || d.setgid) {
		err = unix.Fchown(fd, at.uid, at.gid)
	}
	// Owner and contents may both have cost the set-id bits.
	if err == nil && (at.mode&0o7000 != 0 || at.mode&a.umask != 0) {
		err = unix.Fchmod(fd, at.mode)
	}
	if err == nil && len(at.xattrs) > 0 {
		err = setAttrs(fd, at.xattrs)
	}
	if err == nil {
		err = setTimes(fd, "", at.mtime)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// create opens a new regular file in the place of whatever has its name.
func (a *applier) create(d *dir, base string, mode uint32) (int, error) {
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(d.fd, base, flags, mode)
	if errors.Is(err, unix.EEXIST) {
		if err := a.clear(d, base); err != nil {
			return -1, err
		}
		fd, err = unix.Openat(d.fd, base, flags, mode)
	}
	d.dirty = true
	return fd, err
}

func (a *applier) fill(fd int, r io.Reader, size int64) error {
	var at, end int64
	for at < size {
		b := a.buf[:min(int64(len(a.buf)), size-at)]
		n, err := io.ReadFull(r, b)
		b = b[:n]
		if !allZero(b) {
			if at != end {
				if _, err := unix.Seek(fd, at, io.SeekStart); err != nil {
					return err
				}
			}
			if err := writeAll(fd, b); err != nil {
				return err
			}
			end = at + int64(n)
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: %w", ErrInvalid, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	if end != size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// allZero says whether b is worth a hole: a whole page or more of zeros.
func allZero(b []byte) bool {
	if len(b) < 4096 || b[0] != 0 || b[len(b)-1] != 0 {
		return false
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (a *applier) symlink(d *dir, base, target string, at attributes) error {
	if target == "" || len(target) >= 4096 || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("%w: link target of %d bytes", ErrInvalid, len(target))
	}
	err := unix.Symlinkat(target, d.fd, base)
	if errors.Is(err, unix.EEXIST) {
		if err := a.clear(d, base); err != nil {
			return err
		}
		err = unix.Symlinkat(target, d.fd, base)
	}
	if err != nil {
		return err
	}
	d.dirty = true
	return a.finish(d, base, at)
}

// finish sets owner and times of a file that cannot be opened.
func (a *applier) finish(d *dir, base string, at attributes) error {
	if at.uid != 0 || at.gid != 0 || d.setgid {
		if err := unix.Fchownat(d.fd, base, at.uid, at.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return setTimes(d.fd, base, at.mtime)
}

// node makes a pipe or a device. A character device 0:0 is the overlay's sign
// for a deleted file and must not come from an archive as such.
func (a *applier) node(d *dir, base string, h *tar.Header, at attributes) error {
	var dev uint64
	mode := at.mode
	make := func(fd int, name string, mode uint32, dev uint64) error { return mknod(fd, name, mode, dev) }
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	default:
		mode |= unix.S_IFBLK
	}
	if h.Typeflag != tar.TypeFifo {
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d is out of range", ErrInvalid, h.Devmajor, h.Devminor)
		}
		dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		make = a.nodes
	}
	if h.Typeflag == tar.TypeChar && dev == 0 {
		return fmt.Errorf("%w: character device 0:0 cannot be in an image", ErrInvalid)
	}
	err := make(d.fd, base, mode, dev)
	if errors.Is(err, unix.EEXIST) {
		if err := a.clear(d, base); err != nil {
			return err
		}
		err = make(d.fd, base, mode, dev)
	}
	if err != nil {
		return fmt.Errorf("make device or pipe: %w", err)
	}
	d.dirty = true
	if err := a.finish(d, base, at); err != nil {
		return err
	}
	// What was just made is no link, so nothing is followed here.
	return unix.Fchmodat(d.fd, base, at.mode, 0)
}
