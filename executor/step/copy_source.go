package step

import (
	"context"
	"errors"
	"path"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// selection is what a copy takes.
func selection(op *plan.Copy) request.Selection {
	return request.Selection{Paths: op.Paths, Parents: op.Parents, Exclude: op.Exclude, Chmod: op.Chmod}
}

// Contents is what a copy takes of a context, in words for who has the files at hand.
func Contents(op *plan.Copy, src Source) request.Contents {
	return request.Contents{Selection: selection(op), Ignore: src.Patterns}
}

// Digest is that of what a copy takes from its source, see take.Digest.
func Digest(ctx context.Context, op *plan.Copy, env Env) (sum [32]byte, err error) {
	if len(op.Paths) == 0 {
		return sum, nil
	}
	src, release, err := source(ctx, op.From, env)
	if err != nil {
		return sum, err
	}
	src.Owners = src.Owners && op.Chown == ""
	sum, err = take.Digest(ctx, src, selection(op), take.Care{})
	return sum, errors.Join(err, release())
}

// CheckSources fails if the context src lacks a source that a copy names. It
// says nothing of wildcards, of --parents and of what else may go wrong.
func CheckSources(ctx context.Context, op *plan.Copy, src Source) error {
	if len(op.Paths) == 0 || op.Parents {
		return nil
	}
	f, err := take.Open(src, selection(op), false)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range op.Paths {
		if take.HasWildcards(p) {
			continue
		}
		at, err := f.Lookup(ctx, path.Clean("/"+p))
		switch {
		case errors.Is(err, ErrNotFound):
			return err
		case err == nil:
			at.Close()
		}
	}
	return nil
}
