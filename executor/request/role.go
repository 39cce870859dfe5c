package request

import (
	"strconv"
	"strings"
	"time"
)

// Role is one of the three parts that the launcher runs in sandboxes of their
// own; empty: all of them in one process, which is the in-pod mode.
type Role string

const (
	// RoleFetch reads the Dockerfile, resolves and pulls base images, and fetches
	// contexts. It has the pull credentials and runs no tenant code.
	RoleFetch Role = "fetch"
	// RoleBuild runs the steps and makes the image. It has no credential.
	RoleBuild Role = "build"
	// RolePush pushes the image. It has the push credentials and runs no tenant
	// code.
	RolePush Role = "push"
)

// Go is the payload of FrameGo: the walls stand, and this is what is known now
// that was not when the sandbox was made.
type Go struct {
	// Fetched are the contexts that fetch handed out; for build.
	Fetched []Fetched `json:"fetched,omitempty"`
	// Layers are those whose images are mounted, by LayerKey, each where LayerPath
	// says.
	Layers []string `json:"layers,omitempty"`
	// Steps are what fetch has found in the layer cache; for build.
	Steps []KnownStep `json:"steps,omitempty"`
}

// LayerKey names a layer: by its tar's digest and by its blob's, both as
// sha256:<hex>. An image that names a tar which is not that of its blob gets no
// other layer's files.
func LayerKey(diffID, digest string) string {
	return strings.TrimPrefix(diffID, "sha256:") + "-" + strings.TrimPrefix(digest, "sha256:")
}

// LayerBlock is the size of the first block of a layer's image.
const LayerBlock = 4096

// MaxLayers is how many layers' images a build may have mounted.
const MaxLayers = 2000

// LayersPath is the directory that has the mounts of layers' images in build.
const LayersPath = "/b"

// LayerPath is where the image of the i-th of Go.Layers is mounted. It is short:
// the names of all lowers of an overlay have to fit into one page.
func LayerPath(i int) GuestPath { return GuestPath(LayersPath + "/" + strconv.Itoa(i)) }

// Fetched is a context that fetch handed out. It lies in Store as
// contexts/<Name>.
type Fetched struct {
	// Name is FetchedDockerfile, FetchedMain, or the place of a named context in
	// Build.Contexts, in decimal.
	Name string `json:"name"`
	// Time is that of the context, as SOURCE_DATE_EPOCH takes it; zero: unknown.
	Time time.Time `json:"time,omitzero"`
	// Text: the file is no archive but the text that came in place of one.
	Text bool `json:"text,omitempty"`
}

const (
	FetchedDockerfile = "dockerfile"
	FetchedMain       = "main"
)

// Image is one image manifest that build made.
type Image struct {
	Descriptor
	Platform string `json:"platform"` // os/arch[/variant]
}

// Descriptor names a blob in the store (image-spec, descriptor.md).
type Descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"` // sha256:<hex>
	Size      int64  `json:"size"`   // bytes
}

// Material is something that a build took from outside and that is part of what
// it made from (SLSA: a resolved dependency). Those of fetch are told by a
// process that runs no tenant code; those of build by one that does.
type Material struct {
	Kind     MaterialKind `json:"kind"`
	URI      string       `json:"uri"` // image reference or URL, without a password
	Platform string       `json:"platform,omitempty"`
	Digest   string       `json:"digest,omitempty"` // sha256:<hex>, or a commit as sha1:<hex>
}

// MaterialKind is what a material is.
type MaterialKind string

const (
	MaterialImage MaterialKind = "image"
	MaterialGit   MaterialKind = "git"
	MaterialHTTP  MaterialKind = "http"
)
