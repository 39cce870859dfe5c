package layer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const opaqueAttr = "user.overlay.opaque"

// lookup finds what the layers below show under a name. dirs are the
// directories of the lowers that are merged there, highest first; every part of
// their paths is a real directory.
func lookup(dirs []string, name string) (path string, st unix.Stat_t, ok bool, err error) {
	for _, d := range dirs {
		path := d + "/" + name
		switch err := unix.Lstat(path, &st); {
		case err == nil:
			return path, st, !isWhiteout(&st), nil
		case !errors.Is(err, unix.ENOENT):
			return "", st, false, fmt.Errorf("look below: %w", err)
		}
	}
	return "", st, false, nil
}

// merged returns the directories of the lowers that are merged at name in dirs.
func merged(dirs []string, name string) ([]string, error) {
	var out []string
	for _, d := range dirs {
		path := d + "/" + name
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look below: %w", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
		out = append(out, path)
		if isOpaque(path) {
			break
		}
	}
	return out, nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func isOpaque(path string) bool {
	var b [2]byte
	n, err := unix.Lgetxattr(path, opaqueAttr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

func isOpaqueFd(fd int) bool {
	var b [2]byte
	n, err := unix.Fgetxattr(fd, opaqueAttr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// reversed returns the lowers highest first.
func reversed(lowers []string) []string {
	out := make([]string, len(lowers))
	for i, l := range lowers {
		out[len(lowers)-1-i] = l
	}
	return out
}
