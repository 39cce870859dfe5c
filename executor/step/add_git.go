package step

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// repository copies what a checkout of a git repository holds, as it does with a
// directory of the context; nothing is unpacked or hidden.
func (c *copier) repository(ctx context.Context, r plan.Repository, op *plan.Copy, env Env) (err error) {
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
	sel := selection(op)
	sel.Paths, sel.Parents = []string{"/"}, false
	files, err := take.Open(Source{Root: dir}, sel, false)
	if err != nil {
		return err
	}
	defer files.Close()
	local := c.from
	c.from = files
	defer func() { c.from = local }()
	all, err := files.Argument(ctx, "/")
	if err != nil {
		return err
	}
	_, err = c.one(ctx, "/", op.Dest, false, all)
	return err
}
