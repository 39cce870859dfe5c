package step

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// CheckSources fails if the context src lacks a source that a copy names. It
// says nothing of wildcards, of --parents and of what else may go wrong.
func CheckSources(op *plan.Copy, src Source) error {
	if len(op.Paths) == 0 || op.Parents {
		return nil
	}
	fd, err := openRoot(src.Root)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := &copier{root: -1, src: fd, hidden: src.Excluded}
	for _, p := range op.Paths {
		if hasWildcards(p) {
			continue
		}
		at, err := c.lookup(path.Clean("/" + p))
		switch {
		case errors.Is(err, ErrNotFound):
			return err
		case err == nil:
			at.close()
		}
	}
	return nil
}

// expand gives the paths that a source argument names, absolute within the
// source. Without wildcards that is the argument itself, there or not. Matches
// are sorted; there may be none.
func (c *copier) expand(p string) ([]string, error) {
	parts := split(path.Clean("/" + p))
	first := slices.IndexFunc(parts, hasWildcards)
	if first < 0 {
		return []string{"/" + path.Join(parts...)}, nil
	}
	for _, part := range parts[first:] {
		if _, err := path.Match(part, ""); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
	}
	start := path.Join(parts[:first]...)
	at, err := c.lookup(start)
	if err != nil {
		return nil, err
	}
	defer at.close()
	if !at.isDir() {
		return nil, nil
	}
	return c.glob(at.fd, at.path, parts[first:])
}

// glob matches patterns, one a component, in the directory dir. Links on the
// way are not followed; the last component may be one.
func (c *copier) glob(dir int, rel string, patterns []string) (found []string, err error) {
	entries, err := readDir(dir, rel)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ok, _ := path.Match(patterns[0], e.name); !ok {
			continue
		}
		sub := path.Join(rel, e.name)
		if len(patterns) == 1 {
			seen, err := c.visible(dir, sub, e)
			if err != nil {
				return nil, err
			}
			if seen {
				found = append(found, "/"+sub)
			}
			continue
		}
		if e.typ != unix.S_IFDIR {
			continue
		}
		if all, err := c.hides(sub, true); err != nil || all {
			if err != nil {
				return nil, err
			}
			continue
		}
		below, err := c.globIn(dir, e.name, sub, patterns[1:])
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

func (c *copier) globIn(dir int, name, rel string, patterns []string) ([]string, error) {
	fd, err := openat(dir, name, openDir, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	defer unix.Close(fd)
	return c.glob(fd, rel, patterns)
}

// lookup finds a source, with links followed. What an ignore file hides is not
// there, nor is what only a hidden link leads to.
func (c *copier) lookup(p string) (spot, error) {
	r := resolution{}
	ignored := false
	if c.hidden != nil {
		r.hidden = func(rel string) (bool, error) {
			hide, err := c.hidden(rel, false)
			ignored = ignored || hide
			return hide, err
		}
	}
	at, err := r.run(c.src, p)
	if errors.Is(err, unix.ENOTDIR) {
		return at, notFound(p)
	}
	if err != nil {
		return at, err
	}
	there := len(at.rest) == 0
	if at.isDir() && at.path != "" {
		there, err = c.visible(at.fd, at.path, entry{typ: unix.S_IFDIR})
		ignored = ignored || !there
	}
	if err == nil && !there {
		err = notFound(p)
		if ignored {
			err = fmt.Errorf("%w (the ignore file hides it)", err)
		}
	}
	if err != nil {
		at.close()
	}
	return at, err
}

func (c *copier) hides(rel string, dir bool) (bool, error) {
	if c.hidden == nil {
		return false, nil
	}
	return c.hidden(rel, dir)
}

// visible says whether the ignore file lets rel be seen. A hidden directory is
// there if something in it is. The entry's name is looked up in dir; without a
// name dir is the directory itself.
func (c *copier) visible(dir int, rel string, e entry) (bool, error) {
	hide, err := c.hides(rel, false)
	if err != nil || !hide || e.typ != unix.S_IFDIR {
		return !hide, err
	}
	if all, err := c.hides(rel, true); err != nil || all {
		return false, err
	}
	name := cmp.Or(e.name, ".")
	fd, err := openat(dir, name, openDir, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	defer unix.Close(fd)
	entries, err := readDir(fd, rel)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if seen, err := c.visible(fd, path.Join(rel, e.name), e); err != nil || seen {
			return seen, err
		}
	}
	return false, nil
}

// hasWildcards says whether a component of a source has to be matched.
func hasWildcards(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

func base(p string) string { return path.Base(p) }

// entry is a name in a directory.
type entry struct {
	name string
	typ  uint32 // S_IFREG and so on
	to   string // the name that it gets; empty: the same
}

// readDir lists the open directory dir, sorted; rel is its path, for messages.
// Most file systems tell the types in the listing, which saves a stat a file.
func readDir(dir int, rel string) ([]entry, error) {
	var list []entry
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := retry(func() (err error) { n, err = unix.Getdents(dir, buf); return err })
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: "/" + rel, Err: err}
		}
		if n == 0 {
			break
		}
		if list, err = parseDirents(list, buf[:n], dir); err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: "/" + rel, Err: err}
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// parseDirents reads what getdents64(2) gave: inode, offset (8 bytes each),
// length of the record (2), type (1), name with a closing zero.
func parseDirents(list []entry, b []byte, dir int) ([]entry, error) {
	const head = 19
	for len(b) > head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= head || size > len(b) {
			return nil, errors.New("malformed directory entry")
		}
		name, _, _ := strings.Cut(string(b[head:size]), "\x00")
		typ := uint32(b[18]) << 12 // the DT_ types are those of S_IFMT
		b = b[size:]
		if name == "." || name == ".." || name == "" {
			continue
		}
		if typ == 0 {
			var st unix.Stat_t
			if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			typ = st.Mode & unix.S_IFMT
		}
		list = append(list, entry{name: name, typ: typ})
	}
	return list, nil
}
