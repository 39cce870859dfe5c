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

// mount mounts lowers (lowest first) below upper, or read-only if upper is
// empty, on a new directory root inside base.
func (s *Space) mount(lowers []string, upper string) (base, root string, err error) {
	lowers = visible(lowers)
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
	var b strings.Builder
	b.WriteString("lowerdir=")
	for i := len(lowers) - 1; i >= 0; i-- {
		b.WriteString(lowers[i])
		if i > 0 {
			b.WriteByte(':')
		}
	}
	flags := uintptr(unix.MS_RDONLY)
	if upper != "" {
		flags = 0
		fmt.Fprintf(&b, ",upperdir=%s,workdir=%s", upper, work)
	}
	if err := unix.Mount("overlay", root, "overlay", flags, b.String()); err != nil {
		os.RemoveAll(base)
		return "", "", fmt.Errorf("mount overlay of %d lowers: %w", len(lowers), err)
	}
	return base, root, nil
}

// visible leaves out what lies below the topmost lower whose own root is
// opaque: the overlay does not look at that mark on roots.
func visible(lowers []string) []string {
	for i := len(lowers) - 1; i > 0; i-- {
		var b [1]byte
		if n, err := unix.Lgetxattr(lowers[i], "trusted.overlay.opaque", b[:]); err == nil && n == 1 && b[0] == 'y' {
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
