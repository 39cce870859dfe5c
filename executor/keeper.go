package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// keeper hands out what steps have made for the launcher's layer cache.
type keeper struct {
	*player
	store  *store.Store
	images *layerImages
}

func newKeeper(ctx context.Context, p *player, st *store.Store) *keeper {
	return &keeper{player: p, store: st, images: newLayerImages(ctx, p)}
}

// packed makes a layer of what a step has changed: a blob if that is wanted, and an
// image of it for the launcher's layer cache if that is to have it.
func (b *build) packed(ctx context.Context, w *work, blob bool, opt layer.PackOptions) (err error) {
	if b.keeper == nil || w.key == "" || w.lent {
		w.layer, err = layer.Pack(ctx, w.upper, b.store, opt)
		return err
	}
	image := b.keeper.begin()
	opt.Tee = image
	if blob {
		w.layer, err = layer.Pack(ctx, w.upper, b.store, opt)
	} else {
		w.layer, err = layer.PackTar(ctx, w.upper, opt)
	}
	if err != nil {
		image.drop()
		return err
	}
	if err := b.keeper.keep(w, image.end(), blob); err != nil {
		return err
	}
	return b.learnContents(ctx, w.step.Op)
}

// keep hands out what is known of a step, after its layer.
func (k *keeper) keep(w *work, hasImage, blob bool) error {
	c := request.CachedStep{DiffID: w.layer.DiffID.String(), TarSize: w.layer.TarSize, Image: hasImage, Created: w.ended}
	if blob {
		c.Digest, c.Size, c.Media = w.layer.Digest.String(), w.layer.Size, string(w.layer.MediaType)
	}
	if !usable(c, blob) {
		return nil
	}
	return k.note(request.KnownStep{Plain: string(w.plain), Key: string(w.key), Cached: c}, w.step.Op)
}

// note puts down what is known of a step under its keys.
func (k *keeper) note(known request.KnownStep, op plan.Op) error {
	c := known.Cached
	c.Key = ""
	if err := k.put(stepKey(known.Key), c); err != nil || known.Plain == "" {
		return err
	}
	if copiesContext(op) {
		return k.put(stepKey(known.Plain), request.CachedStep{Hint: true})
	}
	c.Key = known.Key
	return k.put(stepKey(known.Plain), c)
}

// pulled keeps a result that fetch has pulled from a place of the request. It may be
// called of nil.
func (k *keeper) pulled(known request.KnownStep, op plan.Op) error {
	if k == nil || !known.Cached.Pulled || known.Key == "" {
		return nil
	}
	h, err := v1.NewHash(known.Cached.Digest)
	if err != nil || !k.store.Has(h) {
		return err // it has stayed where it is
	}
	if lent(known.Plain, known.Cached.Pulled, op) {
		// Of which content this is the result the place says, and only for this copy.
		known.Cached.Key = known.Key
		return k.put(stepKey(known.Plain), known.Cached)
	}
	return k.note(known, op)
}

// again notes that a copy has the result that the cache knows of other steps: next
// time nobody has to read what it copies. It may be called of nil.
func (k *keeper) again(known request.KnownStep, op plan.Op) error {
	c, ok := op.(*plan.Copy)
	if k == nil || !ok || c.From.Kind != plan.FromStage || known.Plain == "" {
		return nil
	}
	known.Cached.Key = known.Key
	return k.put(stepKey(known.Plain), known.Cached)
}

func (k *keeper) put(key stepKey, c request.CachedStep) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return send(k.tools.Outlet, request.Output{Kind: request.OutputStep, Name: string(key), Size: int64(len(b))}, bytes.NewReader(b))
}

// begin starts an image of a layer, whose tar is to be written.
func (k *keeper) begin() *keptImage {
	r, w := io.Pipe()
	i := &keptImage{PipeWriter: w, done: make(chan error, 1)}
	go func() {
		err := k.images.write(r, "", func(diffID v1.Hash) (string, error) { return diffID.String(), nil })
		_, _ = io.Copy(io.Discard, r) // the layer goes on without
		i.done <- err
		if err != nil {
			k.tools.Sink.Emit(request.Event{Time: time.Now(), Kind: request.EventDebug, Text: "layer cache: " + err.Error()})
		}
	}()
	return i
}

// keptImage is an image that is being made.
type keptImage struct {
	*io.PipeWriter
	done chan error
}

// end says whether there is an image.
func (i *keptImage) end() bool { i.Close(); return <-i.done == nil }

func (i *keptImage) drop() { i.CloseWithError(errDropped); <-i.done }
