package step

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// Env is what a step works with beside its own instruction and its tree.
type Env struct {
	// Space gives out directories of the workspace.
	Space *rootfs.Space
	// Context is the build context, Named are the named contexts with files.
	Context Source
	Named   map[string]Source
	// Stage returns the tree of another stage of the plan, finished already;
	// nil if the plan does not have it.
	Stage func(plan.StageID) *rootfs.Tree
	// Download fetches the URLs of an ADD.
	Download Downloader
	// Checkout puts the files of a git repository into dir, which is empty, and
	// returns the time of the commit; nil: there is no git.
	Checkout func(ctx context.Context, r plan.Repository, dir string) (time.Time, error)
	// Secret returns a secret; ok is false if there is none of that id.
	Secret func(ctx context.Context, id string) (data []byte, ok bool, err error)
	// Agent returns what asks the SSH agent of an id: a message of the agent
	// protocol without its length gives a reply without its length. It is nil if
	// there is no such agent.
	Agent func(id string) func(ctx context.Context, message []byte) ([]byte, error)
	// OpenCache returns the directory of a cache mount, the same for the same
	// cache all build long; nil: there are no cache mounts.
	OpenCache func(ctx context.Context, c Cache) (*rootfs.Kept, error)
	// Output takes what a command writes: stream 1 or 2. The data is valid
	// during the call only. Calls for the two streams may overlap.
	Output func(stream int, data []byte)
	// Took is told the Digest of what a copy took from a context; nil: nobody is.
	Took func(sum [sha256.Size]byte)
	// Run holds what every RUN sees.
	Run request.Run
	// Timeout bounds the time of a step; 0: nothing does.
	Timeout time.Duration
	// Tasks bounds the number of processes of commands; nil: nothing does.
	Tasks *rootfs.Tasks
	// Nodes makes device nodes where the process itself may not; nil: mknod.
	Nodes func(dirfd int, name string, mode uint32, dev uint64) error
	// Self is the executor's own program, which knows Child under the argument
	// "run-child"; empty: the running program.
	Self string
}

// Source is a tree of files to copy from.
type Source = take.Source

// named is the named context called name.
func (e Env) named(name string) (Source, error) {
	src, ok := e.Named[name]
	if !ok {
		return src, fmt.Errorf("context %s is not there", name)
	}
	return src, nil
}

// Downloader fetches the URLs of an ADD.
type Downloader interface {
	// Download writes the body found at url to w. It returns the time of its
	// last modification (zero if the server does not say).
	Download(ctx context.Context, url string, w io.Writer) (modified time.Time, err error)
}

// Do carries out one step on top of tree and returns the upper directory that
// holds what it changed, which is tree's new top. Nothing is added to the tree
// when an error is returned. A command that fails gives an *ExitError, a step
// that was ended by a limit of time, of its own or of the build, a
// *request.TimeoutError.
func Do(ctx context.Context, op plan.Op, tree *rootfs.Tree, env Env) (upper string, err error) {
	if env.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, env.Timeout, &request.TimeoutError{Flag: request.StepTimeoutFlag, Limit: env.Timeout})
		defer cancel()
	}
	upper, err = do(ctx, op, tree, env)
	var timeout *request.TimeoutError
	if err != nil && errors.As(context.Cause(ctx), &timeout) {
		return "", timeout
	}
	return upper, err
}

func do(ctx context.Context, op plan.Op, tree *rootfs.Tree, env Env) (upper string, err error) {
	switch op := op.(type) {
	case *plan.Run:
		return doRun(ctx, op, tree, env)
	case *plan.Copy:
		return doCopy(ctx, op, tree, env)
	case *plan.Workdir:
		return doWorkdir(ctx, op, tree, env)
	}
	return "", fmt.Errorf("step: not supported: %T", op)
}
