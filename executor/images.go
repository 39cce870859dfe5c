package executor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// layerImages hands out the images of layers while their blobs are pulled, and
// knows of which layers there are images.
type layerImages struct {
	ctx   context.Context
	out   request.Outlet
	sink  request.Sink
	steps *Steps
	spool string // directory

	mu   sync.Mutex
	have map[string]bool
}

// layerID names a layer, as request.LayerKey does.
type layerID struct{ diffID, digest v1.Hash }

func (id layerID) key() string { return request.LayerKey(id.diffID.String(), id.digest.String()) }

// newLayerImages knows those that the launcher has.
func newLayerImages(ctx context.Context, p *player) *layerImages {
	l := &layerImages{ctx: ctx, out: p.tools.Outlet, sink: p.tools.Sink, steps: p.steps, spool: p.storeDir(), have: map[string]bool{}}
	for _, key := range p.req.Layers {
		l.have[key] = true
	}
	return l
}

// has says whether a layer has an image. It may be called of nil: there are none.
func (l *layerImages) has(id layerID) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.have[id.key()]
}

// of lists the keys of those that have an image, each once.
func (l *layerImages) of(wanted []layerID) (list []string) {
	seen := map[layerID]bool{}
	for _, id := range wanted {
		if !seen[id] && l.has(id) && len(list) < request.MaxLayers {
			list = append(list, id.key())
		}
		seen[id] = true
	}
	return list
}

// besides returns an outlet for the blob of a layer, which hands out the layer's
// image too.
func (l *layerImages) besides(id layerID) request.Outlet { return imaging{l.out, l, id, l.make, false} }

// checked is besides for the result of a step that a place has: nobody has looked yet
// whether the layer is what it says, and if not, the step can be done instead. image says
// whether an image is wanted.
func (l *layerImages) checked(id layerID, image bool) request.Outlet {
	if image {
		return imaging{l.out, l, id, l.make, true}
	}
	return imaging{l.out, l, id, l.check, true}
}

type imaging struct {
	request.Outlet
	images *layerImages
	layer  layerID
	make   func(io.Reader, layerID) error
	strict bool // a blob that is not the layer is dropped
}

// Open implements request.Outlet. It is called again when a pull begins anew.
func (i imaging) Open(what request.Output) (request.Stream, error) {
	blob, err := i.Outlet.Open(what)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	t := &imaged{Stream: blob, tar: w, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		err := i.make(r, i.layer)
		if i.strict && (errors.Is(err, errMismatch) || errors.Is(err, layer.ErrInvalid)) {
			t.bad = err
		}
		if err != nil && !errors.Is(err, errDropped) {
			// Whoever unpacks the layer finds the same, and is to fail if it has to.
			text := fmt.Sprintf("layer %s is unpacked, not mounted: %v", i.layer.digest, err)
			i.images.sink.Emit(request.Event{Time: time.Now(), Kind: request.EventDebug, Text: text})
		}
		_, _ = io.Copy(io.Discard, r) // the blob goes on
	}()
	return t, nil
}

// imaged is the stream of a blob of which an image is made.
type imaged struct {
	request.Stream
	tar  *io.PipeWriter
	done chan struct{}
	bad  error // why the blob is dropped; valid after done
}

func (t *imaged) Write(p []byte) (int, error) {
	if _, err := t.tar.Write(p); err != nil {
		return 0, err
	}
	return t.Stream.Write(p)
}

// Commit implements request.Stream.
func (t *imaged) Commit(digest string) error {
	t.tar.Close()
	<-t.done
	if t.bad != nil {
		return t.bad
	}
	return t.Stream.Commit(digest)
}

// Close implements request.Stream.
func (t *imaged) Close() error {
	t.tar.CloseWithError(errDropped)
	<-t.done
	return t.Stream.Close()
}

var errDropped = errors.New("the blob was dropped")

// make hands out the image of a base layer, whose blob r has.
func (l *layerImages) make(r io.Reader, id layerID) error {
	defer l.steps.span("image of layer " + id.digest.String())()
	err := l.write(r, id.key(), func(got v1.Hash) (string, error) {
		if got != id.diffID {
			return "", errMismatch
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.have[id.key()] = true
	return nil
}

// check fails if a blob is not that of the layer.
func (l *layerImages) check(r io.Reader, id layerID) error {
	_, err := l.image(r, io.Discard, func(got v1.Hash) (string, error) {
		if got != id.diffID {
			return "", errMismatch
		}
		return "", nil
	})
	return err
}

// write hands out the image of the layer that r has. name says what to commit it as,
// when the digest of the tar is known.
func (l *layerImages) write(r io.Reader, key string, name func(diffID v1.Hash) (string, error)) error {
	out, err := l.out.Open(request.Output{Kind: request.OutputLayer, Name: key})
	if err != nil {
		return err
	}
	defer out.Close()
	as, err := l.image(r, out, name)
	if err != nil {
		return err
	}
	return out.Commit(as)
}

// image writes the image of the layer that r has to out, and returns its name.
func (l *layerImages) image(r io.Reader, out io.Writer, name func(diffID v1.Hash) (string, error)) (as string, err error) {
	var spools []string
	defer func() {
		for _, name := range spools {
			os.Remove(name)
		}
	}()
	// Most files are small, and each would be a frame.
	w := bufio.NewWriterSize(out, request.MaxChunk)
	first, got, err := layer.Image(l.ctx, r, w, layer.ImageOptions{Spool: func() (*os.File, error) {
		f, err := os.CreateTemp(l.spool, "over-")
		if err == nil {
			spools = append(spools, f.Name())
		}
		return f, err
	}})
	if err == nil {
		as, err = name(got)
	}
	if err == nil {
		_, err = w.Write(first)
	}
	if err == nil {
		err = w.Flush()
	}
	return as, err
}
