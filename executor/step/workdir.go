package step

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func doWorkdir(ctx context.Context, op *plan.Workdir, tree *rootfs.Tree, env Env) (upper string, err error) {
	mnt, err := tree.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, mnt.Discard()) }()
	if err := makeWorkdir(mnt.Root(), op); err != nil {
		return "", err
	}
	return mnt.Commit()
}

// makeWorkdir makes the directory and its missing parents, all of them the
// user's. What is there stays as it is.
func makeWorkdir(root string, op *plan.Workdir) error {
	dir, err := openRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	c := &copier{root: dir, self: owner{uint32(os.Geteuid()), uint32(os.Getegid())}}
	if op.User != "" {
		own, err := lookupOwner(dir, op.User)
		if err != nil {
			return fmt.Errorf("WORKDIR %s: %w", op.Path, err)
		}
		c.own = &own
	}
	at, err := resolve(dir, op.Path)
	if err != nil {
		return err
	}
	defer at.close()
	return c.makeDirs(&at, len(at.rest), parentMode)
}
