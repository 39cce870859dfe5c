package step

import (
	"context"
	"errors"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func doWorkdir(ctx context.Context, op *plan.Workdir, tree *rootfs.Tree, env Env) (string, error) {
	return "", errors.New("not supported yet: Workdir")
}
