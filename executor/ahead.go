package executor

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// ahead says that a layer of the image is there: its upload need not wait for the last
// step.
func (b *build) ahead(l layer.Blob) error {
	if b.req.NoPush || len(b.req.Destinations) == 0 {
		return nil
	}
	if b.layersReady == nil {
		return b.tools.Outlet.Keep(request.Output{Kind: request.OutputAhead, Digest: l.Digest.String()})
	}
	select {
	case b.layersReady <- request.Descriptor{Digest: l.Digest.String(), Size: l.Size}:
	default: // it is in time when the image is there
	}
	return nil
}

// uploadsAhead is how many layers are uploaded at once while steps run, which need the
// machine too.
const uploadsAhead = 2

// uploads push layers before there is an image. What goes wrong with it nobody is told:
// the push of the image tries again. If there will be no image, the registry has blobs
// that nothing names, and removes them when it cleans up.
type uploads struct {
	*player
	open   func() (*store.Store, error) // when there is something in it
	layers <-chan request.Descriptor
	to     []string // repositories

	cancel context.CancelFunc
	ended  chan struct{}
	enough func() // no further one is begun
	all    sync.WaitGroup
}

// uploadAhead uploads layers as they come, until stop.
func (p *player) uploadAhead(ctx context.Context, open func() (*store.Store, error), layers <-chan request.Descriptor) (*uploads, error) {
	u := &uploads{player: p, open: open, layers: layers, ended: make(chan struct{})}
	u.enough = sync.OnceFunc(func() { close(u.ended) })
	var err error
	if u.to, err = p.repositories(); err != nil {
		return nil, err
	}
	ctx, u.cancel = context.WithCancel(ctx)
	if layers == nil || p.req.NoPush || len(u.to) == 0 {
		return u, nil
	}
	for range uploadsAhead {
		u.all.Go(func() { u.work(ctx) })
	}
	return u, nil
}

// stop ends what is under way.
func (u *uploads) stop() {
	u.cancel()
	u.enough()
	u.all.Wait()
}

func (u *uploads) work(ctx context.Context) {
	for {
		select {
		case <-u.ended:
			return
		case <-ctx.Done():
			return
		case l := <-u.layers:
			if err := u.upload(ctx, l); err != nil && ctx.Err() == nil {
				return
			}
		}
	}
}

func (u *uploads) upload(ctx context.Context, l request.Descriptor) error {
	defer u.steps.span("upload " + l.Digest)()
	st, err := u.open()
	if err != nil {
		return err
	}
	d, err := described(l)
	if err == nil && !st.Has(d.Digest) {
		err = fmt.Errorf("blob %s: %w", d.Digest, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	for _, repo := range u.to {
		if err := u.tools.Images.PushBlob(ctx, st, d, repo); err != nil {
			return err
		}
	}
	return nil
}
