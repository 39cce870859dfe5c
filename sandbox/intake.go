package sandbox

import (
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// intake takes what one role hands out, stream by stream.
type intake struct {
	role   request.Role
	store  *store
	out    *outputs            // nil: the role makes none
	kept   map[string]*outputs // layouts of results of steps, by their names
	caches *caches             // nil: nothing is kept
	layers *layers             // nil: the role makes none
	// contents answers about local contexts; nil: nobody does.
	contents *contents
	// ahead takes layers that the image will have; nil: nothing is pushed.
	ahead *ahead
	open  map[uint32]incoming
}

// incoming is one open stream. After an error nobody calls it again but for
// discard.
type incoming interface {
	write(p []byte) error
	end(e request.OutputEnd) error
	discard()
}

// handsOut says which kinds of output are whose.
func handsOut(role request.Role, kind request.OutputKind) bool {
	switch kind {
	case request.OutputStored:
		return role != request.RolePush
	case request.OutputTags, request.OutputSources, request.OutputContext:
		return role == request.RoleFetch
	case request.OutputLayer:
		return role != request.RolePush
	case request.OutputTar, request.OutputIndex, request.OutputKeep, request.OutputAhead, request.OutputCache, request.OutputStep:
		return role == request.RoleBuild
	}
	return false
}

// begin opens a stream.
func (i *intake) begin(what request.Output) error {
	if !handsOut(i.role, what.Kind) {
		return fmt.Errorf("%w: %.20q is not for %s to hand out", errOutput, what.Kind, i.role)
	}
	if what.Kind == request.OutputAhead {
		return i.ahead.add(i.store, what.Digest)
	}
	if what.Kind == request.OutputKeep {
		out, err := i.outputs(what)
		if err != nil {
			return err
		}
		return out.lose(out.keep(what.Digest))
	}
	if i.open[what.Stream] != nil || len(i.open) >= request.MaxStreams {
		return fmt.Errorf("%w: stream %d of %d", errOutput, what.Stream, len(i.open))
	}
	in, err := i.incoming(what)
	if err != nil {
		return err
	}
	i.open[what.Stream] = in
	return nil
}

func (i *intake) incoming(what request.Output) (incoming, error) {
	switch what.Kind {
	case request.OutputCache:
		return i.caches.begin(what)
	case request.OutputTar, request.OutputIndex:
		out, err := i.outputs(what)
		if err != nil {
			return nil, err
		}
		return out.take(what)
	case request.OutputLayer:
		return i.layers.begin(i.role, what)
	case request.OutputStep:
		return i.layers.beginStep(what)
	}
	return i.store.begin(what)
}

// outputs are the layout that something is for, or those of the image.
func (i *intake) outputs(what request.Output) (*outputs, error) {
	if what.Name == "" {
		return i.out, nil
	}
	if out := i.kept[what.Name]; out != nil {
		return out, nil
	}
	return nil, fmt.Errorf("%w: %s for layout %.80q", errOutput, what.Kind, what.Name)
}

func (i *intake) write(stream uint32, p []byte) error {
	in := i.open[stream]
	if in == nil {
		return fmt.Errorf("%w: bytes without an output", errOutput)
	}
	return in.write(p)
}

func (i *intake) end(e request.OutputEnd) error {
	in := i.open[e.Stream]
	if in == nil {
		return fmt.Errorf("%w: end without an output", errOutput)
	}
	delete(i.open, e.Stream)
	return in.end(e)
}

// discard drops what is still open.
func (i *intake) discard() {
	for _, in := range i.open {
		in.discard()
	}
	i.open = map[uint32]incoming{}
}
