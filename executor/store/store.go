package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrNotFound is wrapped when a blob is not in the store.
var ErrNotFound = errors.New("blob not found")

// MaxMetadata is the largest manifest, index or config that is read whole, in
// bytes: 4 MiB, as other clients allow.
const MaxMetadata = 4 << 20

// Store is a directory in OCI image-layout form. It is safe for concurrent use.
type Store struct {
	dir string

	mu      sync.Mutex
	sources map[v1.Hash]string
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
	s := &Store{dir: dir, sources: map[v1.Hash]string{}}
	b, err := os.ReadFile(s.sourcesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := json.Unmarshal(b, &s.sources); err != nil {
		return nil, fmt.Errorf("open store: sources.json: %w", err)
	}
	return s, nil
}

func (s *Store) sourcesFile() string { return filepath.Join(s.dir, "sources.json") }

func (s *Store) path(h v1.Hash) string { return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex) }

// Has says whether the blob is there.
func (s *Store) Has(h v1.Hash) bool {
	_, err := os.Stat(s.path(h))
	return err == nil
}

// Open opens a blob; its size is in bytes.
func (s *Store) Open(h v1.Hash) (io.ReadCloser, int64, error) {
	f, err := os.Open(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s: %w", h, ErrNotFound)
	}
	if err != nil {
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

// Put stores a small blob.
func (s *Store) Put(data []byte) (v1.Hash, error) {
	b, err := s.Create()
	if err != nil {
		return v1.Hash{}, err
	}
	defer b.Close()
	if _, err := b.Write(data); err != nil {
		return v1.Hash{}, err
	}
	h, _, err := b.Commit()
	return h, err
}

// Remember notes that blob h, whether it is in the store or not, can be had
// from the repository named by repo (host/path).
func (s *Store) Remember(h v1.Hash, repo string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sources[h] == repo {
		return nil
	}
	s.sources[h] = repo
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
	defer s.mu.Unlock()
	repo, ok = s.sources[h]
	return repo, ok
}

// Tag makes name point to the manifest desc: an entry of index.json with that
// name as org.opencontainers.image.ref.name. An older entry of the name goes.
func (s *Store) Tag(name string, desc v1.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	desc.Annotations = map[string]string{refName: name}
	index.Manifests = append(slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return d.Annotations[refName] == name
	}), desc)
	b, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := os.WriteFile(s.indexFile(), b, 0o644); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// Tagged returns the manifest that name points to, or ErrNotFound.
func (s *Store) Tagged(name string) (v1.Descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.readIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[refName] == name {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("%s: %w", name, ErrNotFound)
}

// refName is the annotation that names an entry of index.json (image-spec,
// annotations.md).
const refName = "org.opencontainers.image.ref.name"

func (s *Store) indexFile() string { return filepath.Join(s.dir, "index.json") }

func (s *Store) readIndex() (v1.IndexManifest, error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	b, err := os.ReadFile(s.indexFile())
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return index, fmt.Errorf("read index: %w", err)
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return index, fmt.Errorf("read index: %w", err)
	}
	return index, nil
}

// Blob is a blob being written; what is written is hashed as it passes.
type Blob struct {
	s    *Store
	f    *os.File
	h    hash.Hash
	n    int64
	done bool
}

// Create begins a blob. Close it in any case.
func (s *Store) Create() (*Blob, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "blobs"), "new-")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &Blob{s: s, f: f, h: sha256.New()}, nil
}

// Write adds to the blob.
func (b *Blob) Write(p []byte) (int, error) {
	n, err := b.f.Write(p)
	b.h.Write(p[:n])
	b.n += int64(n)
	return n, err
}

// Commit puts the blob in its place and returns its digest and size.
func (b *Blob) Commit() (v1.Hash, int64, error) {
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b.h.Sum(nil))}
	if err := b.f.Close(); err != nil {
		return v1.Hash{}, 0, fmt.Errorf("commit blob: %w", err)
	}
	if err := os.Rename(b.f.Name(), b.s.path(h)); err != nil {
		return v1.Hash{}, 0, fmt.Errorf("commit blob: %w", err)
	}
	b.done = true
	return h, b.n, nil
}

// Sum is the digest of what was written so far.
func (b *Blob) Sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b.h.Sum(nil))}
}

// Close drops the blob unless it was committed.
func (b *Blob) Close() error {
	if b.done {
		return nil
	}
	b.done = true
	b.f.Close()
	return os.Remove(b.f.Name())
}
