package step

import (
	"context"
	"errors"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func doRun(ctx context.Context, op *plan.Run, tree *rootfs.Tree, env Env) (string, error) {
	return "", errors.New("RUN: not supported yet")
}
