package request

import (
	"encoding/json"
	"fmt"
	"slices"
)

// ResultKey is the annotation of an entry of an image index that says of which step it is
// the result.
const ResultKey = "kbuild-sandbox.step"

// maxResults bounds an index that grows: the oldest entries go first.
const maxResults = 10000

// resultIndex is an image index, as far as it matters here.
type resultIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     []json.RawMessage `json:"manifests"`
}

type resultEntry struct {
	Descriptor
	Annotations map[string]string `json:"annotations"`
}

// MergeResults adds the entries of an index of results to those of an old one. The old
// one's other entries stay, those that are no results as they are: it may be of a layout
// with images. What is wrong with it is that of a file that anybody may have written.
func MergeResults(old, added []byte) ([]byte, error) {
	var was, is resultIndex
	if err := json.Unmarshal(added, &is); err != nil {
		return nil, fmt.Errorf("index of results: %w", err)
	}
	if err := json.Unmarshal(old, &was); err != nil {
		return nil, fmt.Errorf("index of results: %w", err)
	}
	renewed := map[string]bool{}
	for _, raw := range is.Manifests {
		e, err := result(raw)
		if err != nil {
			return nil, err
		}
		renewed[e.Annotations[ResultKey]] = true
	}
	var others, results []json.RawMessage
	for _, raw := range was.Manifests {
		e, err := result(raw)
		if err != nil {
			return nil, err
		}
		key := e.Annotations[ResultKey]
		switch {
		case key == "":
			others = append(others, raw)
		case !renewed[key]:
			raw, err := json.Marshal(resultEntry{e.Descriptor, map[string]string{ResultKey: key}})
			if err != nil {
				return nil, fmt.Errorf("index of results: %w", err)
			}
			results = append(results, raw)
		}
	}
	if n := len(results) + len(is.Manifests) - maxResults; n > 0 {
		results = results[min(n, len(results)):]
	}
	is.Manifests = slices.Concat(others, results, is.Manifests)
	return json.Marshal(is)
}

func result(raw json.RawMessage) (e resultEntry, err error) {
	if err = json.Unmarshal(raw, &e); err != nil {
		err = fmt.Errorf("index of results: %w", err)
	}
	return e, err
}
