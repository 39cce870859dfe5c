package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The names by which a layer tar says what it removes (image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh." // AUFS's own files; only the next one means something
	opaqueMarker   = ".wh..wh..opq"
)

// marker deals with an entry that is about the layers below and no file itself.
// The order of such entries and of others does not matter.
func (a *applier) marker(_ *tar.Header, name string) (done bool, err error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return false, nil
	}
	dirname, base := path.Split(name)
	dirname = strings.TrimSuffix(dirname, "/")
	for part := range strings.SplitSeq(dirname, "/") {
		if strings.HasPrefix(part, metaPrefix) {
			return true, nil
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return false, fmt.Errorf("%w: below a whiteout", ErrInvalid)
		}
	}
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !ok:
		return false, nil
	case base == opaqueMarker:
		return true, a.hide(dirname, "")
	case strings.HasPrefix(base, metaPrefix):
		return true, nil
	case hidden == "", hidden == ".", hidden == "..":
		return false, fmt.Errorf("%w: whiteout of no name", ErrInvalid)
	}
	return true, a.hide(dirname, hidden)
}

// hide is about a name of the layers below, or, if base is empty, everything
// that they have in a directory. What this layer has itself stays.
//
// The directory is looked for as if the layer's own links were not there: they
// do not lead a whiteout elsewhere. A directory that this layer does not have
// yet is not made for the sake of a whiteout, since it may be about to be hidden
// too: it waits until the directory is there or the layer ends.
func (a *applier) hide(dirname, base string) error {
	if l := a.lastMissing; l.raw == dirname && len(a.pending[l.path]) > 0 {
		return a.postpone(l.path, base)
	}
	at := place{dir: a.pin(a.root), below: a.root.below}
	for steps, rest := 0, dirname; rest != "" && at.below != nil; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		link, err := a.toward(&at, name)
		if err == nil && (name == ".." || strings.HasPrefix(link, "/")) {
			up := path.Dir("/" + at.path)[1:]
			if link != "" {
				up = ""
			}
			// From the root again: what has been passed is free of links.
			rest = up + "/" + link + "/" + rest
			a.leave(&at)
			at = place{dir: a.pin(a.root), below: a.root.below}
		} else if link != "" {
			rest = link + "/" + rest
		}
		if steps++; err != nil || tooLong(steps, rest) {
			a.leave(&at)
			return err // links in a circle lead nowhere: nothing to hide
		}
	}
	defer a.leave(&at)
	switch {
	case len(at.below) == 0:
		return nil
	case at.dir == nil:
		a.lastMissing = rawPath{dirname, at.path}
		return a.postpone(at.path, base)
	}
	return a.hideNow(at.dir, base)
}

// place is a directory of the layers below on a whiteout's way.
type place struct {
	path  string
	dir   *dir     // this layer's; nil: it has none
	below []string // nil: nothing there shows
}

// rawPath is a directory's path as a layer says it and as it is.
type rawPath struct{ raw, path string }

func (a *applier) leave(at *place) {
	if at.dir != nil {
		a.release(at.dir)
		at.dir = nil
	}
}

// toward goes from a place to a name in it, or returns where the link of a layer
// below leads that has the name.
func (a *applier) toward(at *place, name string) (link string, err error) {
	if name == "" || name == "." || name == ".." {
		return "", nil
	}
	if at.dir != nil {
		var st unix.Stat_t
		err := unix.Fstatat(at.dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			next, _, err := a.step(at.dir, name)
			a.leave(at)
			if err == nil {
				*at = place{path: next.path, dir: next, below: next.below}
			}
			return "", err
		}
		if err == nil { // a file of this layer hides whatever there is
			at.below = nil
			return "", nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return "", err
		}
	}
	src, st, ok, err := lookup(at.below, name)
	if err != nil {
		return "", err
	}
	switch {
	case ok && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return readlink(unix.AT_FDCWD, src, a.scratch)
	case ok && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		a.leave(at)
		at.path = join(at.path, name)
		at.below, err = merged(at.below, name)
		return "", err
	}
	at.below = nil
	return "", nil
}

func (a *applier) hideNow(d *dir, base string) error {
	hidden := d.path
	if base != "" {
		hidden = join(d.path, base)
	}
	if err := a.tooLate(hidden); err != nil {
		return err
	}
	switch {
	case base != "":
		_, _, shows, err := lookup(d.below, base)
		if err != nil || !shows {
			return err
		}
		return a.hideName(d, base)
	case d != a.root:
		return a.hideBelow(d)
	}
	a.rootHidden = d.below
	a.forgetBelow(d)
	return nil
}

// maxPending bounds the names in bytes that wait for their directory.
const maxPending = 64 << 20

func (a *applier) postpone(p, base string) error {
	if a.pending == nil {
		a.pending = map[string][]string{}
	}
	if a.pendingSize += len(base) + 16; len(a.pending[p]) == 0 {
		a.pendingSize += len(p) + 64
	}
	if a.pendingSize > maxPending {
		return fmt.Errorf("%w: too many whiteouts in directories that the layer does not have", ErrLimit)
	}
	a.pending[p] = append(a.pending[p], base)
	return nil
}

// settle applies the whiteouts that waited for d.
func (a *applier) settle(d *dir) error {
	bases := a.pending[d.path]
	delete(a.pending, d.path)
	if len(d.below) == 0 {
		return nil
	}
	if slices.Contains(bases, "") { // everything
		return a.hideNow(d, "")
	}
	for _, base := range bases {
		if err := a.hideNow(d, base); err != nil {
			return err
		}
	}
	return nil
}

// finishHiding applies the whiteouts that still wait: in directories like those
// below, made for them. A directory comes before those in it, and may turn out
// to be hidden itself.
func (a *applier) finishHiding() error {
	for _, p := range slices.Sorted(maps.Keys(a.pending)) {
		d := a.pin(a.root)
		for name := range strings.SplitSeq(p, "/") {
			if len(d.below) == 0 {
				break
			}
			n, err := a.descend(d, name)
			a.release(d)
			if err != nil {
				return err
			}
			if d = n; d == nil {
				break
			}
		}
		if d != nil {
			a.release(d)
		}
	}
	return a.hideRoot()
}

// descend opens the directory name in d, following no link; if this layer has
// none it makes one like that below. It returns nil where the layer has a file.
func (a *applier) descend(d *dir, name string) (*dir, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	n, _, err := a.step(d, name)
	return n, err
}

// hideName hides what the layers below have under a name.
func (a *applier) hideName(d *dir, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		d.dirty = true
		return a.nodes(d.fd, base, unix.S_IFCHR, 0)
	case err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return err
	}
	n, _, err := a.step(d, base)
	if err != nil {
		return err
	}
	defer a.release(n)
	return a.hideBelow(n)
}

// tooLate refuses to hide a path whose link in a layer below has already led an
// entry somewhere else.
func (a *applier) tooLate(p string) error {
	for f := range a.followed {
		if within(f, p) {
			return fmt.Errorf("%w: hides %q after entries below it", ErrInvalid, f)
		}
	}
	return nil
}

// hideRoot hides the names that the layers below have in the root, one by one:
// an overlay does not look whether its root is opaque.
func (a *applier) hideRoot() error {
	for _, low := range a.rootHidden {
		fd, err := unix.Open(low, openDir, 0)
		if err != nil {
			return fmt.Errorf("open lower: %w", err)
		}
		entries, err := readDir(fd, a.scratch)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("read lower: %w", err)
		}
		for _, e := range entries {
			if err := a.hideName(a.root, e.name); err != nil {
				return err
			}
		}
	}
	return nil
}
