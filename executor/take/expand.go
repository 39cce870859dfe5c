package take

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// expand gives the paths that a source argument names, absolute within the
// source. Without wildcards that is the argument itself, there or not. Matches
// are sorted; there may be none.
func (f *Files) expand(ctx context.Context, p string) ([]string, error) {
	parts := beneath.Split(path.Clean("/" + p))
	first := slices.IndexFunc(parts, HasWildcards)
	if first < 0 {
		return []string{"/" + path.Join(parts...)}, nil
	}
	for _, part := range parts[first:] {
		if _, err := path.Match(part, ""); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
	}
	start := path.Join(parts[:first]...)
	at, err := f.Lookup(ctx, start)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	if !at.IsDir() {
		return nil, nil
	}
	return f.glob(ctx, at.FD, at.Path, parts[first:])
}

// glob matches patterns, one a component, in the directory dir. Links on the
// way are not followed; the last component may be one.
func (f *Files) glob(ctx context.Context, dir int, rel string, patterns []string) (found []string, err error) {
	entries, err := f.list(ctx, dir, rel)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ok, _ := path.Match(patterns[0], e.Name); !ok {
			continue
		}
		sub := path.Join(rel, e.Name)
		if len(patterns) == 1 {
			seen, err := f.visible(ctx, dir, sub, e)
			if err != nil {
				return nil, err
			}
			if seen {
				found = append(found, "/"+sub)
			}
			continue
		}
		if e.Type != unix.S_IFDIR {
			continue
		}
		if all, err := f.hides(sub, true); err != nil || all {
			if err != nil {
				return nil, err
			}
			continue
		}
		below, err := f.globIn(ctx, dir, e.Name, sub, patterns[1:])
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

func (f *Files) globIn(ctx context.Context, dir int, name, rel string, patterns []string) ([]string, error) {
	fd, err := f.openDir(dir, name, rel)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	defer unix.Close(fd)
	return f.glob(ctx, fd, rel, patterns)
}

// Lookup finds a source, with links followed. What an ignore file hides is not
// there, nor is what only a hidden link leads to.
func (f *Files) Lookup(ctx context.Context, p string) (beneath.Spot, error) {
	r := beneath.Resolution{Deepest: f.care.Deepest}
	if f.careful() {
		r.Flags = unix.RESOLVE_NO_XDEV
	}
	ignored := false
	if f.Excluded != nil {
		r.Hidden = func(rel string) (bool, error) {
			hide, err := f.Excluded(rel, false)
			ignored = ignored || hide
			return hide, err
		}
	}
	at, err := r.Run(f.root, p)
	if errors.Is(err, unix.ENOTDIR) {
		return at, NotFound(p)
	}
	if err != nil {
		return at, err
	}
	there := len(at.Rest) == 0
	if at.IsDir() && at.Path != "" {
		there, err = f.visible(ctx, at.FD, at.Path, beneath.Entry{Type: unix.S_IFDIR})
		ignored = ignored || !there
	}
	if err == nil && !there {
		err = NotFound(p)
		if ignored {
			err = fmt.Errorf("%w (the ignore file hides it)", err)
		}
	}
	if err != nil {
		at.Close()
	}
	return at, err
}

func (f *Files) hides(rel string, dir bool) (bool, error) {
	if f.Excluded == nil {
		return false, nil
	}
	return f.Excluded(rel, dir)
}

// visible says whether the ignore file lets rel be seen. A hidden directory is
// there if something in it is. The entry's name is looked up in dir; without a
// name dir is the directory itself.
func (f *Files) visible(ctx context.Context, dir int, rel string, e beneath.Entry) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	hide, err := f.hides(rel, false)
	if err != nil || !hide || e.Type != unix.S_IFDIR {
		return !hide, err
	}
	if all, err := f.hides(rel, true); err != nil || all {
		return false, err
	}
	name := cmp.Or(e.Name, ".")
	fd, err := f.openDir(dir, name, rel)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	defer unix.Close(fd)
	entries, err := f.list(ctx, fd, rel)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if seen, err := f.visible(ctx, fd, path.Join(rel, e.Name), e); err != nil || seen {
			return seen, err
		}
	}
	return false, nil
}

// HasWildcards says whether a component of a source has to be matched.
func HasWildcards(s string) bool {
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
