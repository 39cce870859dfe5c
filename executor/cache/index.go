package cache

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Entry is the manifest of a result in an index.
type Entry struct {
	Key      string
	Manifest v1.Descriptor
}

// maxEntries bounds an index that somebody else has written.
const maxEntries = 20000

// Index makes an index of results.
func Index(entries []Entry) ([]byte, error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, e := range entries {
		e.Manifest.Annotations = map[string]string{keyLabel: e.Key}
		index.Manifests = append(index.Manifests, e.Manifest)
	}
	return json.Marshal(index)
}

// ReadIndex lists the results in an index. Images that are no results are left out.
func ReadIndex(raw []byte) (list []Entry, err error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("index of results: %w", err)
	}
	if len(index.Manifests) > maxEntries {
		return nil, fmt.Errorf("index of results: %d entries", len(index.Manifests))
	}
	for _, d := range index.Manifests {
		key := d.Annotations[keyLabel]
		if keyForm.MatchString(key) && d.MediaType == types.OCIManifestSchema1 && d.Digest.Algorithm == "sha256" && d.Size >= 0 {
			list = append(list, Entry{key, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}})
		}
	}
	return list, nil
}
