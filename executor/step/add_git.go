package step

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// repository copies what a checkout of a git repository holds, as it does with a
// directory of the context; nothing is unpacked or hidden.
func (c *copier) repository(ctx context.Context, r plan.Repository, dest string, env Env) (err error) {
	if env.Checkout == nil {
		return fmt.Errorf("ADD %s: no git in this build", r.URL)
	}
	dir, err := env.Space.Mkdir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := env.Checkout(ctx, r, dir); err != nil {
		return err
	}
	fd, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	src, hidden := c.src, c.hidden
	c.src, c.hidden = fd, nil
	defer func() { c.src, c.hidden = src, hidden }()
	_, err = c.one(ctx, "/", dest, false, c.filter)
	return err
}
