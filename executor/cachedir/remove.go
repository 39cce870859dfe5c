package cachedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

// Removed is what was removed.
type Removed struct {
	Caches int
	Bytes  int64
}

// Trim removes the least recently used caches until the others have no more
// bytes than the limit, and what belongs to none.
func (d *Dir) Trim() (r Removed, err error) {
	err = whole.Locked(d.path, func() error {
		kept, err := d.list()
		if err != nil {
			return err
		}
		var total int64
		for _, c := range kept {
			total += c.size
		}
		for _, c := range kept {
			if total <= d.limit {
				break
			}
			total -= c.size
			err = errors.Join(err, d.remove(c, &r))
		}
		return err
	})
	return r, err
}

// Prune removes the caches below path that were last used before a time, all if the
// time is zero, and what writers that died left.
func Prune(path string, before time.Time) (r Removed, err error) {
	d := At(path)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	err = whole.Locked(d.path, func() error {
		kept, err := d.list()
		if err != nil {
			return err
		}
		for _, c := range kept {
			if before.IsZero() || c.used.Before(before) {
				err = errors.Join(err, d.remove(c, &r))
			}
		}
		return err
	})
	return r, errors.Join(err, d.sweep(0))
}

// Item is a cache as List shows it.
type Item struct {
	Key  Key
	Size int64     // bytes
	Used time.Time // zero: it cannot be used
}

// List lists the caches below path, the least recently used first.
func List(path string) (items []Item, err error) {
	list, err := At(path).list()
	for _, c := range list {
		items = append(items, Item{c.key, c.size, c.used})
	}
	return items, err
}

// kept is a cache on the disk.
type kept struct {
	key  Key
	size int64
	used time.Time // zero: it cannot be used
}

// list returns all caches, the least recently used first.
func (d *Dir) list() ([]kept, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	var list []kept
	for _, e := range entries {
		key := Key(e.Name())
		if key.check() != nil || !e.IsDir() {
			continue
		}
		s, err := d.state(key)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, fmt.Errorf("cache directory: %w", err)
		}
		list = append(list, kept{key, s.size(), s.Used})
	}
	slices.SortFunc(list, func(a, b kept) int { return a.used.Compare(b.used) })
	return list, nil
}

// remove removes a cache, the index first: without it nothing is there.
func (d *Dir) remove(c kept, r *Removed) error {
	if err := os.Remove(d.index(c.key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cache mount: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(d.path, string(c.key))); err != nil {
		return fmt.Errorf("remove cache mount: %w", err)
	}
	r.Caches++
	r.Bytes += c.size
	return nil
}
