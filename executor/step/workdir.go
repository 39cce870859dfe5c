package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func doWorkdir(ctx context.Context, op *plan.Workdir, tree *rootfs.Tree, env Env) (upper string, err error) {
	mnt, err := tree.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, mnt.Discard()) }()
	if err := makeWorkdir(mnt.Root(), op, env); err != nil {
		return "", err
	}
	return mnt.Commit()
}

// makeWorkdir makes the directory and its missing parents, all of them the
// user's. What is there stays as it is.
func makeWorkdir(root string, op *plan.Workdir, env Env) error {
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	c := &copier{root: dir, self: owner{uint32(os.Geteuid()), uint32(os.Getegid())}}
	if op.User != "" {
		own, unknown, err := lookupOwner(dir, op.User)
		if err != nil {
			return fmt.Errorf("WORKDIR %s: %w", op.Path, err)
		}
		env.tellUnknown("USER "+op.User, unknown)
		c.own = &own
	}
	at, err := beneath.Resolve(dir, op.Path)
	if err != nil {
		return err
	}
	defer at.Close()
	above, missing := at.Path, at.Rest
	if err := c.makeDirs(&at, len(missing), parentMode); err != nil {
		return err
	}
	if op.Time == nil {
		return nil
	}
	// From within: making a directory changes the time of its parent.
	for n := len(missing); n > 0; n-- {
		made := path.Join(above, path.Join(missing[:n]...))
		if err := setTime(dir, made, *op.Time); err != nil {
			return fmt.Errorf("WORKDIR %s: %w", op.Path, err)
		}
	}
	return nil
}

func setTime(root int, name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(root, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
