package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxData is the room for mount options: a page with its closing zero.
	maxData = 4096 - 1
	// maxLowers is how many lowers one mount gets. gVisor and Linux allow 500.
	maxLowers = 400
)

// fits says whether one mount takes lowers, spare directories of the workspace
// more, an upper and its work directory.
func (s *Space) fits(lowers []string, spare int) bool {
	const nameLen = 8 // of a directory of the workspace, far more than ever made
	n := len("userxattr,lowerdir=,upperdir=,workdir=/w") + (spare+4)*(len(s.dir)+nameLen+2)
	for _, l := range lowers {
		n += len(l) + 1
	}
	return n <= maxData && len(lowers)+spare+2 <= maxLowers
}

// merge mounts lowers read-only, to be one lower of a further mount. Nothing
// lies below them, so whiteouts and opaque marks have done their work in it.
func (s *Space) merge(lowers []string) (root string, err error) {
	base, root, err := s.mount(lowers, "")
	if err != nil {
		return "", fmt.Errorf("merge %d lowers: %w", len(lowers), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merges = append(s.merges, merge{base: base, root: root})
	return root, nil
}

// mount mounts lowers (lowest first) below upper, or read-only if upper is
// empty, on a new directory root inside base.
func (s *Space) mount(lowers []string, upper string) (base, root string, err error) {
	for _, l := range lowers {
		// A tenant's name may be in it: what follows a separator would be
		// another lower, from anywhere, or another option.
		if strings.ContainsAny(l, separators) {
			return "", "", fmt.Errorf("mount overlay: a path with ':', ',' or '\\' cannot be in it: %q", l)
		}
	}
	lowers = s.visible(lowers)
	if base, err = s.Mkdir(); err != nil {
		return "", "", err
	}
	root = filepath.Join(base, "m")
	work := filepath.Join(base, "w")
	for _, d := range []string{root, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return "", "", err
		}
	}
	if len(lowers) == 0 || (upper == "" && len(lowers) == 1) {
		// An overlay needs one lower, or two without an upper.
		lowers = append([]string{s.empty, s.empty}, lowers...)
	}
	if err := mountOverlay(root, s.options(lowers, upper, work), upper == ""); err != nil {
		os.RemoveAll(base)
		return "", "", fmt.Errorf("mount overlay of %d lowers: %w", len(lowers), err)
	}
	return base, root, nil
}

// options are the mount options; the overlay wants the topmost lower first.
func (s *Space) options(lowers []string, upper, work string) string {
	var b strings.Builder
	// userxattr: marks are user.overlay.*. In a user namespace gVisor would
	// otherwise fail to mark directories, and even panic where one is renamed.
	b.WriteString("userxattr,lowerdir=")
	for i := len(lowers) - 1; i >= 0; i-- {
		b.WriteString(lowers[i])
		if i > 0 {
			b.WriteByte(':')
		}
	}
	if upper != "" {
		fmt.Fprintf(&b, ",upperdir=%s,workdir=%s", upper, work)
	}
	return b.String()
}

func mountOverlay(root, options string, readOnly bool) error {
	var flags uintptr
	if readOnly {
		flags = unix.MS_RDONLY
	}
	return unix.Mount("overlay", root, "overlay", flags, options)
}

// visible leaves out what lies below the topmost lower whose own root is
// opaque: the overlay does not look at that mark on roots.
func (s *Space) visible(lowers []string) []string {
	for i := len(lowers) - 1; i > 0; i-- {
		var b [1]byte
		if n, err := unix.Lgetxattr(lowers[i], Opaque, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return lowers[i:]
		}
	}
	return lowers
}

// unmount takes the mount off root and removes base, which must then be empty
// but for the overlay's work directory.
func unmount(base, root string) error {
	err := unix.Unmount(root, 0)
	if errors.Is(err, unix.EBUSY) {
		// A mount namespace that is just ending may still hold it.
		err = unix.Unmount(root, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	if err := os.Remove(root); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return os.RemoveAll(base)
}
