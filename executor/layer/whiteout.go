package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
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
		return true, a.opaque(dirname)
	case strings.HasPrefix(base, metaPrefix):
		return true, nil
	case hidden == "", hidden == ".", hidden == "..":
		return false, fmt.Errorf("%w: whiteout of no name", ErrInvalid)
	}
	return true, a.whiteout(dirname, hidden)
}

// whiteout hides a name of the layers below. What this layer has itself under
// the name stays.
func (a *applier) whiteout(dirname, base string) error {
	return a.inBelow(dirname, func(d *dir) error {
		if err := a.tooLate(join(d.path, base)); err != nil {
			return err
		}
		_, _, shows, err := lookup(d.below, base)
		if err != nil || !shows {
			return err
		}
		return a.hideName(d, base)
	})
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

// opaque hides everything that the layers below have in a directory.
func (a *applier) opaque(dirname string) error {
	return a.inBelow(dirname, func(d *dir) error {
		if err := a.tooLate(d.path); err != nil {
			return err
		}
		if d != a.root {
			return a.hideBelow(d)
		}
		a.rootHidden = d.below
		a.forgetBelow(d)
		return nil
	})
}

// inBelow calls do with the directory of the layers below that a whiteout is
// about. Whiteouts speak of what was there before this layer: links that the
// layer itself makes do not lead them elsewhere. If the directory is not there,
// or this layer hides it already, nothing remains to be hidden.
func (a *applier) inBelow(dirname string, do func(*dir) error) error {
	if a.lastBelow.raw != dirname || !a.lastBelow.known {
		p, ok, err := resolveBelow(a.lowers, dirname)
		if err != nil {
			return err
		}
		a.lastBelow = belowPath{raw: dirname, path: p, ok: ok, known: true}
	}
	if !a.lastBelow.ok {
		return nil
	}
	d := a.pin(a.root)
	for name := range strings.SplitSeq(a.lastBelow.path, "/") {
		if name == "" || len(d.below) == 0 {
			break
		}
		n, err := a.descend(d, name)
		a.release(d)
		if n == nil || err != nil {
			return err
		}
		d = n
	}
	defer a.release(d)
	if len(d.below) == 0 {
		return nil
	}
	return do(d)
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

// belowPath remembers the last result of resolveBelow: whiteouts of a directory
// come together.
type belowPath struct {
	raw, path string
	ok, known bool
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
