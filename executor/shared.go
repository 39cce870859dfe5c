package executor

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// Plans for several platforms often have their first steps in common: those of
// a stage FROM --platform=$BUILDPLATFORM, up to the one that first uses a
// TARGET argument. Such steps are done once.

// key names a step by all that decides what it does: the stage and its base,
// the operation with its environment, what it reads from, and every step below
// it. The context, the secrets and the caches are the build's, and the same for
// all. So steps with one key have one result.
type key [sha256.Size]byte

// stageKeys are the keys of a stage: of its base, then of each step.
type stageKeys []key

// end is the key of the whole stage.
func (k stageKeys) end() key { return k[len(k)-1] }

// keys names the steps of a plan.
func keys(p *plan.Plan) (map[*plan.Stage]stageKeys, error) {
	all := map[*plan.Stage]stageKeys{}
	for _, s := range p.Stages {
		base := struct {
			ID      plan.StageID
			Named   string
			Image   string
			Below   key
			Created any
		}{ID: s.ID, Named: s.Base.Named, Created: p.Created}
		if s.Base.Image != nil {
			base.Image = s.Base.Image.Digest.String()
		}
		if s.Base.Stage != nil {
			base.Below = all[s.Base.Stage].end()
		}
		k, err := keyOf(s, base)
		if err != nil {
			return nil, err
		}
		chain := stageKeys{k}
		for _, st := range s.Steps {
			op, sources := detached(st.Op), plan.Sources(st.Op)
			read := make([]key, 0, len(sources))
			for _, src := range sources {
				read = append(read, all[src].end())
			}
			if k, err = keyOf(s, struct {
				Below key
				Type  string
				Op    plan.Op
				Read  []key
			}{chain.end(), fmt.Sprintf("%T", op), op, read}); err != nil {
				return nil, err
			}
			chain = append(chain, k)
		}
		all[s] = chain
	}
	return all, nil
}

// detached is an operation without the stages that it reads from.
func detached(op plan.Op) plan.Op {
	switch op := op.(type) {
	case *plan.Copy:
		c := *op
		c.From.Stage = nil
		return &c
	case *plan.Run:
		r := *op
		r.Mounts = slices.Clone(r.Mounts)
		for i := range r.Mounts {
			r.Mounts[i].From.Stage = nil
		}
		return &r
	}
	return op
}

// keyOf is the key of what v describes. JSON replaces what is not UTF-8, by an
// escape that it uses for nothing else: such a step is like no other.
func keyOf(s *plan.Stage, v any) (key, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return key{}, fmt.Errorf("name a step: %w", err)
	}
	if bytes.Contains(b, []byte(`\ufffd`)) {
		b = fmt.Appendf(b, "%p", s)
	}
	return sha256.Sum256(b), nil
}

// work is a step that was done.
type work struct {
	step *plan.Step
	// upper is what it changed, lowers are what it stood on; tree is both.
	upper  string
	lowers []string
	tree   *rootfs.Tree

	ended time.Time // when it was done, in this build or in an earlier one

	packing sync.Once
	layer   layer.Blob // complete when the packers have ended

	// key is that of the layer cache and plain the one without content, if it has
	// one; end is what steps on top stand on. Empty: there is none.
	key, plain, end stepKey
	took            string              // the digest of what a copy took from a context
	cached          *request.CachedStep // it was not done; nil: it was
	// lent: key is made of one that a place has given, see borrowed.
	lent bool
}

// ledger knows the work of a build by its key. It is safe for concurrent use.
type ledger struct {
	mu   sync.Mutex
	done map[key]*work
}

func (l *ledger) find(k key) *work {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[k]
}

func (l *ledger) enter(k key, w *work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = map[key]*work{}
	}
	l.done[k] = w
}
