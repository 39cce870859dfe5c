package step

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// setGID is the set-group-ID bit of a mode.
const setGID = 0o2000

// ownerOf is the owner of the copy: files of a context are root's, whoever they
// belong to on the host.
func (c *copier) ownerOf(st *unix.Stat_t) owner {
	switch {
	case c.own != nil:
		return *c.own
	case c.from.Stage:
		return owner{st.Uid, st.Gid}
	}
	return owner{}
}

// dress gives a new file, made with perm, owner, mode and times. What it has by
// itself is not set again: in gVisor each call costs as much as the file's data.
func (c *copier) dress(n *node, fd int, perm uint32, st *unix.Stat_t) error {
	want, mode := c.ownerOf(st), c.from.ModeOf(st)
	chown := want != c.self || n.setgid
	if chown {
		if err := unix.Fchown(fd, int(want.uid), int(want.gid)); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	have, err := c.grant(fd, perm)
	if err != nil {
		return err
	}
	if mode != have {
		if err := unix.Fchmod(fd, mode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	if err := futimes(fd, st); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// grant is the mode that a file got which was made with perm: the umask is the
// process's, so it is seen once for each mode and remembered.
func (c *copier) grant(fd int, perm uint32) (uint32, error) {
	if have := c.granted[perm].Load(); have != 0 {
		return have &^ grantKnown, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	have := st.Mode & 0o7777
	c.granted[perm].Store(have | grantKnown)
	return have, nil
}

// dressDir gives a directory that is copied owner, mode and attributes. Its
// times come when all is in it.
func (c *copier) dressDir(n *node, mode uint32, existed bool) error {
	want := c.ownerOf(&n.Stat)
	if existed || n.parent.setgid || want != c.self {
		if err := unix.Fchown(n.dst, int(want.uid), int(want.gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(n.dst, mode); err != nil {
		return err
	}
	if !c.from.Stage {
		return nil
	}
	return (&worker{c: c}).xattrs(n.dst, n.FD)
}

// dressAt gives a new link, FIFO or device owner, mode and times.
func (w *worker) dressAt(n *node, e beneath.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(n.FD, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if want := w.c.ownerOf(&st); want != w.c.self || n.setgid {
		err := unix.Fchownat(n.dst, n.to(e), int(want.uid), int(want.gid), unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(n.dst, n.to(e), w.c.from.ModeOf(&st), 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(n.dst, n.to(e), times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func futimes(fd int, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func isSetgid(dir int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return false, fmt.Errorf("stat destination: %w", err)
	}
	return st.Mode&setGID != 0, nil
}

// xattrs copies extended attributes. One that cannot be read or set is left
// out, as BuildKit does.
func (w *worker) xattrs(to, from int) error {
	return w.attrs.Each(from, func(name string, value []byte) error { return unix.Fsetxattr(to, name, value, 0) })
}
