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
)

// keeper hands out what steps have made for the layer cache.
type keeper struct {
	*player
	images *layerImages
}

func newKeeper(ctx context.Context, p *player) *keeper {
	return &keeper{player: p, images: newLayerImages(ctx, p)}
}

// packed makes a layer of what a step has changed: a blob if it is part of the image,
// and an image of it for the layer cache if that is to have it.
func (b *build) packed(ctx context.Context, w *work, shipped bool, opt layer.PackOptions) (err error) {
	if b.keeper == nil || w.key == "" {
		w.layer, err = layer.Pack(ctx, w.upper, b.store, opt)
		return err
	}
	image := b.keeper.begin()
	opt.Tee = image
	if shipped {
		w.layer, err = layer.Pack(ctx, w.upper, b.store, opt)
	} else {
		w.layer, err = layer.PackTar(ctx, w.upper, opt)
	}
	if err != nil {
		image.drop()
		return err
	}
	return b.keeper.keep(w, image.end(), shipped)
}

// keep hands out what is known of a step, after its layer.
func (k *keeper) keep(w *work, hasImage, shipped bool) error {
	c := request.CachedStep{DiffID: w.layer.DiffID.String(), TarSize: w.layer.TarSize, Image: hasImage, Created: w.ended}
	if shipped {
		c.Digest, c.Size, c.Media = w.layer.Digest.String(), w.layer.Size, string(w.layer.MediaType)
	}
	if !usable(c, shipped) {
		return nil
	}
	if err := k.put(w.key, c); err != nil || w.plain == "" {
		return err
	}
	if op, ok := w.step.Op.(*plan.Copy); ok && op.From.Kind != plan.FromStage {
		return k.put(w.plain, request.CachedStep{Hint: true})
	}
	c.Key = string(w.key)
	return k.put(w.plain, c)
}

// again notes that a copy has the result that the cache knows of other steps: next
// time nobody has to read what it copies.
func (k *keeper) again(known request.KnownStep, op plan.Op) error {
	c, ok := op.(*plan.Copy)
	if !ok || c.From.Kind != plan.FromStage || known.Plain == "" {
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
