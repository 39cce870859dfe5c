package executor

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// Inputs are the files that a build reads beside its images.
type Inputs struct {
	// Dockerfile is its content.
	Dockerfile []byte
	// Context is the build context.
	Context step.Source
	// Named are the named contexts that are trees of files.
	Named map[string]step.Source
	// Times are those of contexts that have one, by name, the build context's
	// under the empty one: a commit's, or what the server says.
	Times map[string]time.Time
	// Epochs finds the times of sources; nil: none has one.
	Epochs plan.Epochs
}

// open finds the inputs of a request, and fetches what has to be fetched.
func (in *Inputs) open(_ context.Context, req *request.Build, _ *rootfs.Space, _ Tools, _ *Steps) error {
	files, err := buildcontext.Open(string(req.Context), string(req.Ignore))
	if err != nil {
		return fmt.Errorf("open context: %w", err)
	}
	in.Context = step.Source{Root: files.Root, Excluded: files.Excluded}
	in.Dockerfile, err = readDockerfile(string(req.Dockerfile))
	return err
}

func readDockerfile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read dockerfile: %w", err)
	}
	defer f.Close()
	// One byte more than is allowed lets Parse say so.
	return io.ReadAll(io.LimitReader(f, dockerfile.MaxSize+1))
}
