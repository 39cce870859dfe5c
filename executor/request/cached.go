package request

import (
	"strings"
	"time"
)

// CachedStep is what the layer cache knows under a key, 64 hex digits. The zero
// value is what it knows of all others.
type CachedStep struct {
	// Key is the one that the steps on top stand on, if it is another.
	Key string `json:"key,omitempty"`
	// Hint says no more than that there are results for some content of the source.
	Hint bool `json:"hint,omitempty"`
	// DiffID is the layer's; Digest, Size and Media are those of its blob, if there
	// is one. Sizes are in bytes.
	DiffID  string `json:"diffID,omitempty"`
	TarSize int64  `json:"tarSize,omitempty"`
	Digest  string `json:"digest,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Media   string `json:"media,omitempty"`
	// Created is when the step ended.
	Created time.Time `json:"created,omitzero"`
	// Image says that there is an image of the layer, under LayerKey.
	Image bool `json:"image,omitempty"`
}

// Found says that there is a layer.
func (c CachedStep) Found() bool { return c.DiffID != "" }

// LayerKey names the image of the layer. No image of a base has such a name: what
// RUN steps have made takes the place of no other layer.
func (c CachedStep) LayerKey() string {
	return StepLayer + strings.TrimPrefix(c.DiffID, "sha256:") + "-" + strings.Repeat("0", 64)
}

// StepLayer begins the names of images of layers that steps have made.
const StepLayer = "step-"

// KnownStep is a step of a plan as the layer cache knows it.
type KnownStep struct {
	// Plain is the key without the content that is read, where that is another;
	// Key is empty if it is not known yet.
	Plain  string     `json:"plain,omitempty"`
	Key    string     `json:"key,omitempty"`
	Cached CachedStep `json:"cached,omitzero"`
}
