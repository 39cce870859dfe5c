package request

import (
	"encoding/json"
	"fmt"
)

// ResultKey is the annotation of an entry of an image index that says of which step it is
// the result.
const ResultKey = "kbuild-sandbox.step"

// maxResults bounds an index that grows: the oldest entries go first.
const maxResults = 10000

// resultIndex is an image index, as far as it matters here.
type resultIndex struct {
	SchemaVersion int           `json:"schemaVersion"`
	MediaType     string        `json:"mediaType,omitempty"`
	Manifests     []resultEntry `json:"manifests"`
}

type resultEntry struct {
	Descriptor
	Annotations map[string]string `json:"annotations"`
}

// MergeResults adds the entries of an index of results to those of an old one, whose
// other entries stay. What is wrong with the old one is that of a file that anybody may
// have written.
func MergeResults(old, added []byte) ([]byte, error) {
	var was, is resultIndex
	if err := json.Unmarshal(added, &is); err != nil {
		return nil, fmt.Errorf("index of results: %w", err)
	}
	if err := json.Unmarshal(old, &was); err != nil {
		return nil, fmt.Errorf("index of results: %w", err)
	}
	renewed := map[string]bool{}
	for _, e := range is.Manifests {
		renewed[e.Annotations[ResultKey]] = true
	}
	var stay []resultEntry
	for _, e := range was.Manifests {
		if key := e.Annotations[ResultKey]; key != "" && !renewed[key] {
			stay = append(stay, resultEntry{e.Descriptor, map[string]string{ResultKey: key}})
		}
	}
	if n := len(stay) + len(is.Manifests) - maxResults; n > 0 {
		stay = stay[min(n, len(stay)):]
	}
	is.Manifests = append(stay, is.Manifests...)
	return json.Marshal(is)
}
