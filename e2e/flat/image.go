package flat

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Image is what of an image is compared.
type Image struct {
	Config Config
	Layers int
	Tree   *Tree
}

// Config is the part of the config file that is compared.
type Config struct {
	OS           string         `json:"os"`
	Architecture string         `json:"architecture"`
	Variant      string         `json:"variant"`
	Author       string         `json:"author"`
	Created      time.Time      `json:"created"`
	Config       map[string]any `json:"config"`
	History      []History      `json:"history"`
}

// History is an entry of the image's history.
type History struct {
	CreatedBy  string `json:"created_by"`
	EmptyLayer bool   `json:"empty_layer,omitempty"`
}

// Open reads the one image of an OCI layout, of an index the one for the
// platform. An empty platform takes the first.
func Open(dir string, platform v1.Platform) (*Image, error) {
	img, err := find(dir, platform)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	return Read(img)
}

// Read flattens an image.
func Read(img v1.Image) (*Image, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	out := &Image{Tree: New()}
	if err := json.Unmarshal(raw, &out.Config); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read layers: %w", err)
	}
	out.Layers = len(layers)
	for i, l := range layers {
		if err := apply(out.Tree, l); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return out, nil
}

func apply(t *Tree, l v1.Layer) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.Apply(r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r) // to the end: digests are checked there
	return err
}

func find(dir string, platform v1.Platform) (v1.Image, error) {
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	return choose(idx, platform)
}

func choose(idx v1.ImageIndex, platform v1.Platform) (v1.Image, error) {
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() {
			sub, err := idx.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return choose(sub, platform)
		}
		if d.Platform == nil || platform.OS == "" || d.Platform.Satisfies(platform) {
			return idx.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("no image for %s", platform)
}
