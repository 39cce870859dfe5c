package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// mount asks the registry to take a blob over from the repository that it came
// from, if that is one of its own. done says that it did. It may have begun an
// upload instead: at is where it goes on. A registry that will not mount is no
// error: the blob is uploaded then.
func (p *push) mount(ctx context.Context, h v1.Hash) (at *url.URL, done bool, err error) {
	source, ok := p.st.Source(h)
	if !ok {
		return nil, false, nil
	}
	repo, err := name.NewRepository(source, name.WeakValidation)
	if err != nil {
		return nil, false, nil
	}
	for _, place := range p.s.c.places(repo) {
		from := place.RepositoryStr()
		if place.RegistryStr() != p.s.repo.RegistryStr() || from == p.s.repo.RepositoryStr() {
			continue
		}
		s, err := p.s.c.session(p.s.repo, p.s.key.scope, from)
		if err != nil {
			return nil, false, err
		}
		at, err := s.begin(ctx, url.Values{"mount": {h.String()}, "from": {from}})
		switch {
		case err == nil && at == nil:
			return nil, true, nil
		case err == nil:
			return at, false, nil
		case !refused(err):
			return nil, false, err
		}
	}
	return nil, false, nil
}

// begin begins an upload and returns where it goes on; nil: the registry has
// mounted the blob.
func (s *session) begin(ctx context.Context, query url.Values) (*url.URL, error) {
	u := s.url("blobs/uploads/")
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, nil)
	if err != nil {
		return nil, err
	}
	resp, _, err := s.small(req, transportErrorSize, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusCreated && len(query) > 0 {
		return nil, nil
	}
	loc, err := resp.Location()
	if err != nil {
		return nil, &formError{"the registry does not say where the upload goes on"}
	}
	if err := checkHop(req.URL.Host, loc.Host); err != nil {
		return nil, err
	}
	return loc, nil
}

// transportErrorSize bounds what is read of an answer that has no content of
// interest, in bytes.
const transportErrorSize = 64 << 10

// cancel gives an upload up, as far as the registry lets us.
func (s *session) cancel(ctx context.Context, at *url.URL) {
	ctx, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, at.String(), nil)
	if err != nil {
		return
	}
	client, err := s.login(ctx)
	if err != nil {
		return
	}
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
	}
}

// upload sends a blob in one request: the digest is known, so the registry can
// check it as it stores it. It is read from the store or from its source, and
// not hashed again here.
func (p *push) upload(ctx context.Context, d v1.Descriptor, at *url.URL) error {
	ctx, dog := watch(ctx, p.s.c.stall)
	defer dog.stop()
	to := *at
	if to.RawQuery != "" {
		to.RawQuery += "&" // kept as it came: it may be signed
	}
	to.RawQuery += "digest=" + url.QueryEscape(d.Digest.String())
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to.String(), http.NoBody)
	if err != nil {
		return err
	}
	if d.Size > 0 {
		setBody(req, d.Size, func() io.ReadCloser { return &uploaded{ctx: ctx, p: p, d: d, dog: dog} })
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.s.do(req, http.StatusCreated, http.StatusNoContent, http.StatusAccepted)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// setBody gives a request a body of n bytes. It may be sent more than once, when
// a token has run out or the registry redirects it, so wire makes it anew
// each time.
func setBody(req *http.Request, n int64, body func() io.ReadCloser) {
	req.ContentLength = n
	req.Body = body()
	req.GetBody = func() (io.ReadCloser, error) { return body(), nil }
}

// uploaded is a blob as the transport reads it, from the store or from its
// source. It is opened at the first read, and counted.
type uploaded struct {
	ctx  context.Context
	p    *push
	d    v1.Descriptor
	dog  *watchdog
	r    io.ReadCloser
	done int64
}

// Read implements io.Reader.
func (u *uploaded) Read(b []byte) (int, error) {
	if u.r == nil {
		r, size, err := u.p.s.c.Blob(u.ctx, u.p.st, u.d.Digest)
		if err != nil {
			return 0, err
		}
		u.r = r
		if size != u.d.Size {
			return 0, fmt.Errorf("blob %s has %d bytes, the manifest says %d", u.d.Digest, size, u.d.Size)
		}
	}
	n, err := u.r.Read(b)
	u.done += int64(n)
	u.dog.moved(n)
	if u.done >= u.d.Size || err != nil {
		u.dog.finish(u.d.Size)
	}
	if n > 0 {
		u.p.meter.set(u.d.Digest, u.done)
	}
	return n, err
}

// Close implements io.Closer.
func (u *uploaded) Close() error {
	if u.r == nil {
		return nil
	}
	return u.r.Close()
}

// meter adds up the progress of all blobs of a push.
type meter struct {
	mu    sync.Mutex
	each  map[v1.Hash]int64
	done  int64
	total int64
	tell  func(done, total int64)
}

func newMeter(blobs []v1.Descriptor, tell func(done, total int64)) *meter {
	m := &meter{each: map[v1.Hash]int64{}, tell: tell}
	for _, d := range blobs {
		m.total += d.Size
	}
	return m
}

func (m *meter) set(h v1.Hash, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n - m.each[h]
	m.each[h] = n
	if m.tell != nil {
		m.tell(m.done, m.total)
	}
}

// refused says that the registry answered, and would not.
func refused(err error) bool {
	var status *transport.Error
	return errors.As(err, &status) && !passingStatus(status.StatusCode)
}
