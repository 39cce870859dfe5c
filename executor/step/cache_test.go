package step

import (
	"context"
	"errors"
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// cachesIn are cache mounts that last as long as the space, as a build without a
// cache directory has them.
func cachesIn(space *rootfs.Space) func(context.Context, Cache) (*rootfs.Kept, error) {
	return func(ctx context.Context, c Cache) (*rootfs.Kept, error) {
		name := fmt.Sprint(c.ID, c.From, c.Source, c.Owner, c.Copy)
		return space.Keep(name, func() (string, func() error, error) {
			dir, undo, err := c.Start(ctx)
			if err != nil {
				return "", nil, err
			}
			m, err := space.Tree(dir).Begin(ctx)
			if err != nil {
				return "", nil, errors.Join(err, undo())
			}
			return m.Root(), func() error { return errors.Join(m.Discard(), undo()) }, nil
		})
	}
}
