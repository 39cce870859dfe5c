package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Pull streams one layer of img into st, where it is not there yet, and checks
// its digest and size. progress is told how many bytes of it are there; after a
// failed try the number falls. It may be nil.
func (c *Client) Pull(ctx context.Context, img *Image, layer v1.Descriptor, st *store.Store, progress func(done int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	if err := checkDescriptor(layer); err != nil {
		return &Error{Class: request.ClassResolve, Msg: "pull " + clean(img.Ref) + ": " + err.Error(), Err: err}
	}
	repo, err := name.NewRepository(img.Repository, name.WeakValidation)
	if err != nil {
		return &Error{Class: request.ClassResolve, Msg: "pull " + clean(img.Ref) + ": " + clean(err.Error()), Err: err}
	}
	one := c.one(layer.Digest.String())
	one.Lock()
	defer one.Unlock()
	if st.Has(layer.Digest) {
		progress(layer.Size)
		return nil
	}
	select {
	case c.pulls <- struct{}{}:
		defer func() { <-c.pulls }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.pull(ctx, repo, layer, st, progress)
}

// one returns the lock of a blob, so that none is pulled, or pushed to one repository,
// twice at once.
func (c *Client) one(blob string) *sync.Mutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.busy[blob]
	if !ok {
		m = &sync.Mutex{}
		c.busy[blob] = m
	}
	return m
}

// pull pulls a blob. Bytes that are not those of the digest are asked for once
// more, at the next place if there is one.
func (c *Client) pull(ctx context.Context, repo name.Repository, d v1.Descriptor, st *store.Store, progress func(int64)) error {
	places := c.places(repo)
	for try := 1; ; try++ {
		r := c.blob(ctx, places, d)
		err := receive(r, d, st, progress)
		r.Close()
		var bad *mismatchError
		if err == nil {
			c.prove(repo, r.places[0])
			return nil
		}
		if !errors.As(err, &bad) || try >= max(2, len(places)) || ctx.Err() != nil {
			return r.explain(err)
		}
		c.note("%v: trying again", r.explain(err))
		progress(0)
		places = append(r.places[1:len(r.places):len(r.places)], r.places[0])
	}
}

// receive writes what r delivers into the store.
func receive(r *blobReader, d v1.Descriptor, st *store.Store, progress func(int64)) error {
	b, err := st.Create()
	if err != nil {
		return err
	}
	defer b.Close()
	buf := make([]byte, copySize)
	for {
		n, err := r.Read(buf)
		if _, werr := b.Write(buf[:n]); werr != nil {
			return fmt.Errorf("store blob: %w", werr)
		}
		if n > 0 {
			progress(r.off)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := b.Sum(); got != d.Digest {
		return &mismatchError{want: d.Digest, got: got, wantSize: d.Size, gotSize: r.off}
	}
	_, _, err = b.Commit()
	return err
}

// Blob opens a blob of the store or, if it is not there, streams it from where
// the store knows it to be; the stream fails at its end if the digest is wrong.
// The size is in bytes.
func (c *Client) Blob(ctx context.Context, st *store.Store, h v1.Hash) (io.ReadCloser, int64, error) {
	r, size, err := st.Open(h)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return r, size, err
	}
	source, ok := st.Source(h)
	if !ok {
		return nil, 0, err
	}
	repo, err := name.NewRepository(source, name.WeakValidation)
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", h, err)
	}
	b := c.blob(ctx, c.places(repo), v1.Descriptor{Digest: h, Size: -1})
	b.hash = sha256.New()
	if err := b.open(); err != nil {
		b.Close()
		return nil, 0, b.explain(err)
	}
	return b, b.want.Size, nil
}

// blobReader reads a blob from a registry. When the connection breaks it goes
// on where it was; when a place fails for good it goes on at the next.
type blobReader struct {
	ctx    context.Context
	c      *Client
	places []name.Repository // the first is in use
	want   v1.Descriptor     // Size -1: not known yet
	hash   hash.Hash         // nil: the reader checks the digest
	off    int64             // bytes delivered so far

	body    io.ReadCloser // nil: not connected
	dog     *watchdog
	fails   int   // since there was progress
	failOff int64 // off at the last failure
	whole   bool  // the registry does not serve ranges
	errs    []error
}

// freshBytes is how much has to arrive for a failure to count as the first
// again.
const freshBytes = 1 << 20

func (c *Client) blob(ctx context.Context, places []name.Repository, d v1.Descriptor) *blobReader {
	return &blobReader{ctx: ctx, c: c, places: places, want: d}
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if err := b.open(); err != nil {
			return 0, err
		}
		n, err := b.body.Read(p)
		if n > 0 {
			return n, b.count(p[:n])
		}
		if err == nil {
			continue
		}
		if err == io.EOF && b.off == b.want.Size {
			return 0, b.end()
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err := b.again(cause(b.ctx, err), 0); err != nil {
			return 0, err
		}
	}
}

func (b *blobReader) count(p []byte) error {
	b.off += int64(len(p))
	b.dog.moved(len(p))
	if b.hash != nil {
		b.hash.Write(p)
	}
	if b.off > b.want.Size {
		return &mismatchError{want: b.want.Digest, wantSize: b.want.Size, gotSize: b.off}
	}
	return nil
}

func (b *blobReader) end() error {
	if b.hash == nil {
		return io.EOF
	}
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b.hash.Sum(nil))}
	if got != b.want.Digest {
		return b.explain(&mismatchError{want: b.want.Digest, got: got, wantSize: b.want.Size, gotSize: b.off})
	}
	return io.EOF
}

// open connects, with retries, if there is no connection.
func (b *blobReader) open() error {
	for b.body == nil {
		var after atomic.Int64
		err := b.connect(&after)
		if err == nil {
			return nil
		}
		if err := b.again(err, time.Duration(after.Load())); err != nil {
			return err
		}
	}
	return nil
}

// connect asks the first place for what is left of the blob.
func (b *blobReader) connect(after *atomic.Int64) error {
	s, err := b.session()
	if err != nil {
		return err
	}
	ctx, dog := watch(context.WithValue(b.ctx, delayKey{}, after), b.c.stall)
	resp, err := b.get(ctx, s)
	if err != nil {
		dog.stop()
		return err
	}
	if b.want.Size < 0 {
		b.want.Size = resp.ContentLength
	}
	b.body, b.dog = &stalling{resp.Body, ctx}, dog
	if resp.StatusCode == http.StatusOK && b.off > 0 {
		if _, err := io.CopyN(io.Discard, b.body, b.off); err != nil {
			b.drop()
			return err
		}
	}
	return nil
}

func (b *blobReader) get(ctx context.Context, s *session) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blobs/"+b.want.Digest.String()), nil)
	if err != nil {
		return nil, err
	}
	ranged := b.off > 0 && !b.whole
	if ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := s.do(req, http.StatusOK, http.StatusPartialContent)
	if ranged && refused(err) {
		b.whole = true // it may serve the whole, or say why not
		return nil, fmt.Errorf("the registry refuses to go on at byte %d: %w", b.off, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, err
	}
	left := b.want.Size - b.off
	if resp.StatusCode == http.StatusOK {
		left = b.want.Size
	} else if !ranged || !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.off)) {
		resp.Body.Close()
		b.whole = true
		return nil, fmt.Errorf("the registry delivers another part than asked for: %w", io.ErrUnexpectedEOF)
	}
	if b.want.Size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != left {
		resp.Body.Close()
		return nil, &mismatchError{want: b.want.Digest, wantSize: b.want.Size, gotSize: b.want.Size - left + resp.ContentLength}
	}
	if b.want.Size < 0 && resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, &formError{"the registry does not say how large the blob is"}
	}
	return resp, nil
}

// again prepares the next try after err: at the same place after a pause, or at
// the next place. It returns an error if there is none.
func (b *blobReader) again(err error, after time.Duration) error {
	b.drop()
	var bad *mismatchError
	if errors.As(err, &bad) || b.ctx.Err() != nil {
		return err
	}
	if b.off-b.failOff >= freshBytes {
		b.fails = 0
	}
	b.fails++
	b.failOff = b.off
	s, serr := b.session()
	if serr != nil {
		return serr
	}
	if err = s.wait(b.ctx, attempt{n: b.fails, what: b.what(), after: after}, err); err == nil {
		return nil
	}
	if len(b.places) == 1 || b.ctx.Err() != nil {
		return err
	}
	err = b.explain(err)
	b.c.note("%v", err)
	b.errs = append(b.errs, err)
	b.places, b.fails, b.whole = b.places[1:], 0, false
	return nil
}

func (b *blobReader) session() (*session, error) {
	return b.c.session(b.places[0], request.Pull, "")
}

func (b *blobReader) what() string {
	return "pull " + b.want.Digest.String() + " from " + clean(b.places[0].Name())
}

// explain makes an *Error of what Read or open returned.
func (b *blobReader) explain(err error) error {
	s, serr := b.session()
	if serr != nil {
		return serr
	}
	err = s.explain(b.what(), err)
	if len(b.errs) > 0 {
		return together("pull "+b.want.Digest.String(), append(b.errs[:len(b.errs):len(b.errs)], err))
	}
	return err
}

func (b *blobReader) drop() {
	if b.body != nil {
		b.body.Close()
		b.dog.stop()
		b.body = nil
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	b.drop()
	return nil
}

// stalling tells a stall from other reasons for which a read was canceled.
type stalling struct {
	io.ReadCloser
	ctx context.Context
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = cause(s.ctx, err)
	}
	return n, err
}

func sum(b []byte) v1.Hash {
	s := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}
