package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/hashes"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/layerdir"
)

// Cached is something in a cache directory.
type Cached struct {
	// Kind is mount, context, or one of layerdir's.
	Kind string    `json:"kind"`
	ID   string    `json:"id"`
	Size int64     `json:"size"` // bytes
	Used time.Time `json:"lastUsed,omitzero"`
}

// ListCaches lists what a cache directory has, the most recently used first.
func ListCaches(dir string) (list []Cached, err error) {
	c := Caches{}
	if c.Dir, err = filepath.EvalSymlinks(dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = checkOwner(c.Dir)
	}
	var mounts []cachedir.Item
	if err == nil {
		mounts, err = itemsOf(c.mounts(), cachedir.List)
	}
	var items []layerdir.Item
	if err == nil {
		items, err = itemsOf(c.layers(), layerdir.List)
	}
	var contexts []hashes.Item
	if err == nil {
		contexts, err = itemsOf(c.hashes(), hashes.List)
	}
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	for _, i := range contexts {
		list = append(list, Cached{Kind: "context", ID: i.Key, Size: i.Size, Used: i.Used})
	}
	for _, m := range mounts {
		list = append(list, Cached{Kind: "mount", ID: string(m.Key), Size: m.Size, Used: m.Used})
	}
	for _, i := range items {
		list = append(list, Cached{Kind: i.Kind, ID: i.Key, Size: i.Size, Used: i.Used})
	}
	slices.SortStableFunc(list, func(a, b Cached) int { return b.Used.Compare(a.Used) })
	return list, nil
}

func itemsOf[T any](dir string, list func(string) ([]T, error)) ([]T, error) {
	err := checkOwner(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return list(dir)
}

// Beyond is when that was used last which has no room among the most recently used
// in so many bytes: PruneCaches of what was used before the time that it returns
// leaves no more than those.
func Beyond(list []Cached, keep int64) time.Time {
	var kept int64
	for _, c := range list {
		if kept += c.Size; kept > keep {
			return c.Used.Add(1) // itself too
		}
	}
	return time.Unix(0, 1) // nothing but what is damaged, which was never used
}
