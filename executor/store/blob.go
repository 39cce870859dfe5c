package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Blob is a blob being written; what is written is hashed as it passes.
type Blob struct {
	s    *Store
	f    *os.File       // nil: it does not stay
	out  request.Stream // nil: it does not go out
	h    hash.Hash
	n    int64
	done bool
}

// Create begins a blob. Close it in any case.
func (s *Store) Create() (*Blob, error) { return s.create(s.out == nil || s.keep, 0) }

// Put stores a small blob. It can be read here wherever else it goes.
func (s *Store) Put(data []byte) (v1.Hash, error) {
	b, err := s.create(true, int64(len(data)))
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

// create begins a blob that stays here or not; size is in bytes, 0: unknown.
func (s *Store) create(stays bool, size int64) (b *Blob, err error) {
	if s.fixed {
		return nil, errFixed
	}
	b = &Blob{s: s, h: sha256.New()}
	if stays {
		if b.f, err = os.CreateTemp(filepath.Join(s.dir, "blobs"), "new-"); err != nil {
			return nil, fmt.Errorf("create blob: %w", err)
		}
	}
	if s.out != nil {
		if b.out, err = s.out.Open(request.Output{Kind: request.OutputStored, Size: size}); err != nil {
			b.out = nil
			return nil, errors.Join(fmt.Errorf("hand out blob: %w", err), b.Close())
		}
	}
	return b, nil
}

// Write adds to the blob.
func (b *Blob) Write(p []byte) (n int, err error) {
	n = len(p)
	if b.f != nil {
		n, err = b.f.Write(p)
	}
	if b.out != nil && err == nil {
		n, err = b.out.Write(p)
	}
	b.h.Write(p[:n])
	b.n += int64(n)
	return n, err
}

// Commit puts the blob in its place and returns its digest and size.
func (b *Blob) Commit() (v1.Hash, int64, error) {
	h := b.Sum()
	if b.f != nil {
		if err := b.f.Close(); err != nil {
			return v1.Hash{}, 0, fmt.Errorf("commit blob: %w", err)
		}
		if err := os.Rename(b.f.Name(), b.s.path(h)); err != nil {
			return v1.Hash{}, 0, fmt.Errorf("commit blob: %w", err)
		}
	}
	if b.out != nil {
		if err := b.out.Commit(h.String()); err != nil {
			return v1.Hash{}, 0, fmt.Errorf("hand out blob: %w", err)
		}
	}
	if b.f == nil {
		b.s.note(h)
	}
	b.done = true
	return h, b.n, nil
}

// note remembers a blob that did not stay.
func (s *Store) note(h v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[h] = true
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
	var errs []error
	if b.f != nil {
		b.f.Close()
		errs = append(errs, os.Remove(b.f.Name()))
	}
	if b.out != nil {
		errs = append(errs, b.out.Close())
	}
	return errors.Join(errs...)
}
