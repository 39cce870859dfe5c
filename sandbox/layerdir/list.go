package layerdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

// smallFile is what a note takes of most disks, in bytes, however short it is.
const smallFile = 4096

// found is something in the directory: an image, a blob, or what is noted of a step
// or of a build.
type found struct {
	key  string // of an image or a blob; else empty
	path string
	used time.Time
	size int64
}

// list finds all, the most recently used first.
func (d *Dir) list() ([]found, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("layer images: %w", err)
	}
	var list []found
	for _, e := range entries {
		f := found{path: filepath.Join(d.path, e.Name())}
		key := strings.TrimSuffix(strings.TrimSuffix(e.Name(), imageSuffix), blobSuffix)
		name, suffix := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), filepath.Ext(e.Name())
		switch {
		case keyForm.MatchString(key) && f.path == d.file(key):
			f.key = key
		case (suffix == stepSuffix || suffix == recallSuffix) && nameForm.MatchString(name):
		default:
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // somebody has just removed it
		}
		if f.used, f.size = info.ModTime(), info.Size(); f.key == "" {
			f.size = max(f.size, smallFile)
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b found) int { return b.used.Compare(a.used) })
	return list, nil
}

// Kinds of what there is.
const (
	Base = "base"       // the image of a base's layer
	Step = "step"       // that of a layer that a step has made
	Blob = "blob"       // such a layer, as it is pushed
	Note = "step-note"  // what is known of a step
	Last = "build-note" // which images a build needed last time
)

// Item is one of them.
type Item struct {
	Kind string
	Key  string
	Size int64 // bytes
	Used time.Time
}

// List lists all that there is at path, the most recently used first.
func List(path string) ([]Item, error) {
	list, err := (&Dir{path: path}).list()
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, f := range list {
		i := Item{Kind: Base, Key: f.key, Size: f.size, Used: f.used}
		switch suffix := filepath.Ext(f.path); {
		case suffix == stepSuffix:
			i.Kind = Note
		case suffix == recallSuffix:
			i.Kind = Last
		case suffix == blobSuffix:
			i.Kind = Blob
		case strings.HasPrefix(f.key, stepPrefix):
			i.Kind = Step
		}
		if f.key == "" {
			i.Key = strings.TrimSuffix(filepath.Base(f.path), filepath.Ext(f.path))
		}
		items = append(items, i)
	}
	return items, nil
}

// lock opens what was found and tells whether nobody else holds it: then it is
// locked until it is closed.
func (f found) lock() (file *os.File, free bool) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Is(err, unix.ELOOP) // nobody builds with a link
	}
	return file, unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// Removed is what was removed.
type Removed struct {
	Layers int
	Bytes  int64
}

// Trim removes images and notes until all together have at most the limit, the
// least recently used first.
func (d *Dir) Trim() (Removed, error) {
	list, err := d.list()
	if err != nil {
		return Removed{}, err
	}
	return d.drop(beyond(list, d.limit))
}

// beyond are those that have no room beside what was used after them.
func beyond(list []found, limit int64) (old []found) {
	var kept int64
	for _, f := range list {
		if kept+f.size > limit {
			old = append(old, f)
			continue
		}
		kept += f.size
	}
	return old
}

// Prune removes what was last used before a time, all if that is zero, and what
// writers that died left.
func Prune(path string, before time.Time) (Removed, error) {
	d := &Dir{path: path}
	list, err := d.list()
	if err != nil {
		return Removed{}, err
	}
	if !before.IsZero() {
		list = slices.DeleteFunc(list, func(f found) bool { return !f.used.Before(before) })
	}
	r, err := d.drop(list)
	return r, errors.Join(err, d.sweep())
}

// drop removes those that nobody holds.
func (d *Dir) drop(list []found) (r Removed, err error) {
	err = whole.Locked(d.path, func() error {
		for _, f := range list {
			d.dropOne(f, &r)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("layer images: %w", err)
	}
	return r, err
}

// dropOne removes one. What cannot be removed is found again next time.
func (d *Dir) dropOne(f found, r *Removed) {
	file, free := f.lock()
	if file != nil {
		defer file.Close()
	}
	if !free {
		return
	}
	if f.key == "" {
		_ = os.Remove(f.path)
	} else {
		d.remove(f.key)
		r.Layers++
	}
	r.Bytes += f.size
}
