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
	// Image says that there is an image of the layer, under LayerKey, and Sum is the
	// image's SHA-256, hex, as the launcher knows it: whether an image is that of the
	// layer is for build to know, which may have been taken over.
	Image bool   `json:"image,omitempty"`
	Sum   string `json:"sum,omitempty"`
	// Pulled says that the layer came, or can be had, from a place of CacheFrom.
	Pulled bool `json:"pulled,omitempty"`
}

// Found says that there is a layer.
func (c CachedStep) Found() bool { return c.DiffID != "" }

// LayerKey names the image of the layer. One that fetch has pulled is called like those
// of bases. No image of a base is called like one that build has made: what RUN steps
// have made takes the place of no other layer.
func (c CachedStep) LayerKey() string {
	if c.Pulled {
		return LayerKey(c.DiffID, c.Digest)
	}
	return StepLayer + strings.TrimPrefix(c.DiffID, "sha256:") + "-" + c.Sum
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

// CachePlace is where results of steps are kept beside the launcher's own cache: one of
// its fields is set.
type CachePlace struct {
	// Repository, registry/repository, has an image for each result, with a tag.
	Repository string `json:"repository,omitempty"`
	// Reference is that of an index of such images.
	Reference string `json:"reference,omitempty"`
	// Layout is the directory of an OCI layout whose index.json is such an index, and
	// Called what the user calls it. It need not be there.
	Layout GuestPath `json:"layout,omitempty"`
	Called string    `json:"called,omitempty"`
}

// Name is what people call the place.
func (c CachePlace) Name() string {
	if c.Layout != "" {
		return c.Called
	}
	return c.Repository + c.Reference
}

// None is said of a place that gets nothing.
func (t CacheTarget) None() bool { return !t.Copies && !t.Others }

// CacheTarget is a place that gets results of steps.
type CacheTarget struct {
	CachePlace
	// Copies are those of COPY and ADD, Others those of all other steps, and of COPY from
	// a stage.
	Copies bool `json:"copies,omitempty"`
	Others bool `json:"others,omitempty"`
	// All: also those of stages that are no part of the image.
	All bool `json:"all,omitempty"`
	// Merge: what a layout has stays in it.
	Merge bool `json:"merge,omitempty"`
	// Strict: a build whose results cannot be kept there has failed.
	Strict bool `json:"strict,omitempty"`
}
