package escape

import (
	"bytes"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Base pushes an image of its own for this attack and returns its reference:
// busybox with further layers, tar archives, whatever they say.
func (t *Target) Base(layers ...[]byte) string {
	t.Helper()
	return t.BaseWith(nil, layers...)
}

// BaseWith is Base with another config.
func (t *Target) BaseWith(change func(*v1.Config), layers ...[]byte) string {
	t.Helper()
	ref, err := name.ParseReference(t.Busybox, name.Insecure)
	must(t, err)
	img, err := remote.Image(ref, remote.WithAuth(&t.Login), remote.WithContext(t.Context()))
	must(t, err)
	return t.pushed(img, change, layers)
}

// Scratch is BaseWith without busybox.
func (t *Target) Scratch(change func(*v1.Config), layers ...[]byte) string {
	t.Helper()
	return t.pushed(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"), change, layers)
}

func (t *Target) pushed(img v1.Image, change func(*v1.Config), layers [][]byte) string {
	t.Helper()
	for _, l := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil })
		must(t, err)
		img, err = mutate.AppendLayers(img, layer)
		must(t, err)
	}
	file, err := img.ConfigFile()
	must(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if change != nil {
		change(&file.Config)
	}
	img, err = mutate.ConfigFile(img, file)
	must(t, err)
	t.bases++
	return t.Push(t, img, fmt.Sprintf("attack/%03d-base:%d", t.ID, t.bases))
}
