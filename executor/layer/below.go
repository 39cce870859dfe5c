package layer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const opaqueAttr = "trusted.overlay.opaque"

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

// resolveBelow finds the directory that a path names in the layers below alone,
// following their symbolic links within the root. It returns its path without
// links, or false if there is no such directory.
func resolveBelow(lowers []string, p string) (string, bool, error) {
	type level struct {
		path string
		dirs []string
	}
	at := []level{{"", lowers}}
	for links := 0; p != ""; {
		var name string
		name, p, _ = strings.Cut(p, "/")
		cur := at[len(at)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		src, st, ok, err := lookup(cur.dirs, name)
		if err != nil || !ok {
			return "", false, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			dirs, err := merged(cur.dirs, name)
			if err != nil {
				return "", false, err
			}
			at = append(at, level{join(cur.path, name), dirs})
		case unix.S_IFLNK:
			link, err := readlink(unix.AT_FDCWD, src, make([]byte, 4096))
			if err != nil {
				return "", false, err
			}
			if links++; links > maxLinks {
				return "", false, nil
			}
			if link[0] == '/' {
				at = at[:1]
			}
			p = link + "/" + p
		default:
			return "", false, nil
		}
	}
	return at[len(at)-1].path, true, nil
}

// reversed returns the lowers highest first.
func reversed(lowers []string) []string {
	out := make([]string, len(lowers))
	for i, l := range lowers {
		out[len(lowers)-1-i] = l
	}
	return out
}
