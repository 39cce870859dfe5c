package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Tag makes name point to the manifest desc: an entry of index.json with that
// name as org.opencontainers.image.ref.name. An older entry of the name goes.
func (s *Store) Tag(name string, desc v1.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed {
		return errFixed
	}
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
	index, err := s.readIndex()
	s.mu.Unlock()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[refName] == name {
			return d, nil
		}
	}
	if s.below != nil {
		return s.below.Tagged(name)
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

// HandOut hands out index.json and sources.json, for the roles that come later.
func (s *Store) HandOut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	for kind, v := range map[request.OutputKind]any{request.OutputTags: index, request.OutputSources: s.sources} {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("hand out %s: %w", kind, err)
		}
		if err := send(s.out, request.Output{Kind: kind, Size: int64(len(b))}, b); err != nil {
			return fmt.Errorf("hand out %s: %w", kind, err)
		}
	}
	return nil
}

func send(out request.Outlet, what request.Output, data []byte) error {
	w, err := out.Open(what)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit("")
}
