package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// identity tells what a cache starts as: with another base, another Dockerfile
// or other files it is another cache, as in BuildKit, where it would be another
// entry of the build cache. Where nothing is kept, the stage is enough.
func (c *caches) identity(ctx context.Context, img *image, want step.Cache) (string, error) {
	switch from := want.From; {
	case from.Kind == plan.FromStage && c.dir == nil:
		return fmt.Sprintf("stage %p", from.Stage), nil
	case from.Kind == plan.FromStage:
		return img.identity(ctx, from.Stage)
	case from.Kind == plan.FromNamed && c.dir == nil:
		return "named context " + from.Name, nil
	case from.Kind == plan.FromNamed:
		dir, release, err := want.Start(ctx)
		if err != nil {
			return "", err
		}
		digest, err := layer.Digest(ctx, dir)
		return digest.String(), errors.Join(err, release())
	}
	return "", nil
}

// identity is made of what a finished stage was built from: the base image's
// digest, the text of commands, and of all other steps the files that they left,
// whatever their times. It is remembered, for a stage may have been used by the
// others in any number of ways.
func (img *image) identity(ctx context.Context, s *plan.Stage) (string, error) {
	if known, ok := img.identities.Load(s); ok {
		return known.(string), nil
	}
	id, err := img.identify(ctx, s)
	if err == nil {
		img.identities.Store(s, id)
	}
	return id, err
}

func (img *image) identify(ctx context.Context, s *plan.Stage) (string, error) {
	sum := sha256.New()
	switch {
	case s.Base.Stage != nil:
		base, err := img.identity(ctx, s.Base.Stage)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "stage %s\n", base)
	case s.Base.Image != nil:
		fmt.Fprintf(sum, "image %s\n", s.Base.Image.Digest)
	case s.Base.Named != "":
		if err := identifyFiles(ctx, sum, img.stages[s.ID].base); err != nil {
			return "", err
		}
	}
	work := img.stages[s.ID].work
	work = work[len(work)-len(s.Steps):]
	for i, st := range s.Steps {
		if run, ok := st.Op.(*plan.Run); ok {
			if err := img.identifyRun(ctx, sum, run); err != nil {
				return "", err
			}
			continue
		}
		if err := identifyFiles(ctx, sum, []string{work[i].upper}); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

func identifyFiles(ctx context.Context, w io.Writer, dirs []string) error {
	for _, dir := range dirs {
		digest, err := layer.Digest(ctx, dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "files %s\n", digest)
	}
	return nil
}

func (img *image) identifyRun(ctx context.Context, w io.Writer, op *plan.Run) error {
	fmt.Fprintf(w, "run %q %q %q %q %q\n", op.Args, op.Env, op.Cwd, op.User, op.Network)
	for _, f := range op.Files {
		fmt.Fprintf(w, "here-document %q %q %o\n", f.Name, f.Data, f.Mode)
	}
	for _, m := range op.Mounts {
		from := m.From.Name
		if m.From.Stage != nil {
			var err error
			if from, err = img.identity(ctx, m.From.Stage); err != nil {
				return err
			}
		}
		fmt.Fprintf(w, "mount %q %q %q %q %q %t\n", m.Type, from, m.Source, m.Target, m.ID, m.ReadOnly)
	}
	return nil
}
