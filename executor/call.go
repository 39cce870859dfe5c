package executor

import (
	"context"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// call answers Build.Call.
func call(_ context.Context, req *request.Build, _ *Inputs, _ plan.Resolver) (*request.Called, error) {
	return nil, dockerfile.Errorf(request.ClassUnsupported, nil, "--call %s is not supported yet", req.Call)
}
