package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// ErrNotFound is wrapped when a blob is not in the store.
var ErrNotFound = errors.New("blob not found")

// MaxMetadata is the largest manifest, index or config that is read whole, in
// bytes: 4 MiB, as other clients allow.
const MaxMetadata = 4 << 20

// Store is a directory in OCI image-layout form. It is safe for concurrent use.
type Store struct {
	dir   string
	below *Store         // what earlier roles left, or nil
	out   request.Outlet // where new blobs go; nil: they stay
	keep  bool           // new blobs stay although they go out
	fixed bool           // nothing can be added

	mu      sync.Mutex
	sources map[v1.Hash]string
	gone    map[v1.Hash]bool // new blobs that went out and did not stay
}

// Open opens the store in dir and makes it if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), layout, 0o644); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, gone: map[v1.Hash]bool{}}
	return s, s.readSources()
}

// ReadOnly opens a store that somebody else writes, when it has all that will be
// asked of it. Nothing can be added.
func ReadOnly(dir string) (*Store, error) {
	s := &Store{dir: dir, fixed: true}
	return s, s.readSources()
}

// Streaming opens a store whose new blobs go to out. In dir it keeps what Put
// and Tag are given, and with keep all blobs; below is what earlier roles left,
// or nil.
func Streaming(dir string, out request.Outlet, below *Store, keep bool) (*Store, error) {
	s, err := Open(dir)
	if err != nil {
		return nil, err
	}
	s.out, s.below, s.keep = out, below, keep
	return s, nil
}

// Beside returns a store for one blob that is like s but for the outlet. What is
// added to one of them, the other does not know.
func (s *Store) Beside(out request.Outlet) *Store {
	return &Store{dir: s.dir, below: s.below, out: out, keep: s.keep, sources: map[v1.Hash]string{}, gone: map[v1.Hash]bool{}}
}

func (s *Store) sourcesFile() string { return filepath.Join(s.dir, "sources.json") }

func (s *Store) readSources() error {
	s.sources = map[v1.Hash]string{}
	b, err := os.ReadFile(s.sourcesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := json.Unmarshal(b, &s.sources); err != nil {
		return fmt.Errorf("open store: sources.json: %w", err)
	}
	return nil
}

func (s *Store) path(h v1.Hash) string { return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex) }

// Has says whether the blob is there.
func (s *Store) Has(h v1.Hash) bool {
	if s.wentOut(h) {
		return true
	}
	_, err := os.Stat(s.path(h))
	return err == nil || s.below != nil && s.below.Has(h)
}

// wentOut says whether a blob is one of ours that did not stay.
func (s *Store) wentOut(h v1.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[h]
}

// Open opens a blob; its size is in bytes.
func (s *Store) Open(h v1.Hash) (io.ReadCloser, int64, error) {
	f, err := os.Open(s.path(h))
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.below != nil:
		return s.below.Open(h)
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%s: %w", h, ErrNotFound)
	case err != nil:
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// Read returns a blob of at most MaxMetadata bytes.
func (s *Store) Read(h v1.Hash) ([]byte, error) {
	r, n, err := s.Open(h)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n > MaxMetadata {
		return nil, fmt.Errorf("%s: %d bytes are too many for a manifest or config", h, n)
	}
	return io.ReadAll(r)
}

// Remember notes that blob h, whether it is in the store or not, can be had
// from the repository named by repo (host/path).
func (s *Store) Remember(h v1.Hash, repo string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed {
		return errFixed
	}
	if s.sources[h] == repo {
		return nil
	}
	s.sources[h] = repo
	if s.out != nil { // see HandOut
		return nil
	}
	b, err := json.Marshal(s.sources)
	if err != nil {
		return fmt.Errorf("remember source: %w", err)
	}
	if err := os.WriteFile(s.sourcesFile(), b, 0o644); err != nil {
		return fmt.Errorf("remember source: %w", err)
	}
	return nil
}

// Source returns the repository that blob h can be had from, if known.
func (s *Store) Source(h v1.Hash) (repo string, ok bool) {
	s.mu.Lock()
	repo, ok = s.sources[h]
	s.mu.Unlock()
	if !ok && s.below != nil {
		return s.below.Source(h)
	}
	return repo, ok
}

var errFixed = errors.New("the store is read-only")
