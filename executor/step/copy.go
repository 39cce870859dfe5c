package step

import (
	"context"
	"errors"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func doCopy(ctx context.Context, op *plan.Copy, tree *rootfs.Tree, env Env) (string, error) {
	return "", errors.New("not supported yet: Copy")
}
