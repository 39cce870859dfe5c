package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	keyLabel    = request.ResultKey
	resultLabel = "kbuild-sandbox.step.result"
	tagPrefix   = "kbuild-"
)

// keyForm is the key of a step.
var keyForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// errForm is wrapped by every error about the form of what was read.
var errForm = errors.New("no result of a step")

// Tag is the tag of the image with the result of a step.
func Tag(key string) string { return tagPrefix + key }

// config is the part of an image's config that a result has.
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Result is what a step has made, and the key that it is found by.
type Result struct {
	Key  string
	Step request.CachedStep
}

// Image makes the config and the manifest of a result. The same result gives the same
// bytes.
func (r Result) Image() (conf, manifest []byte, err error) {
	c := config{Created: r.Step.Created, Architecture: runtime.GOARCH, OS: runtime.GOOS}
	c.Config.Labels = map[string]string{keyLabel: r.Key}
	if r.Step.Key != "" {
		c.Config.Labels[resultLabel] = r.Step.Key
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{r.Step.DiffID}
	if conf, err = json.Marshal(c); err != nil {
		return nil, nil, fmt.Errorf("result of a step: %w", err)
	}
	layer := v1.Descriptor{MediaType: layerType(r.Step.Media), Size: r.Step.Size}
	if layer.Digest, err = v1.NewHash(r.Step.Digest); err != nil {
		return nil, nil, fmt.Errorf("result of a step: %w", err)
	}
	// With the config in the manifest, one question finds a result.
	of := v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(conf)), Data: conf}
	if of.Digest, _, err = v1.SHA256(bytes.NewReader(conf)); err != nil {
		return nil, nil, fmt.Errorf("result of a step: %w", err)
	}
	manifest, err = json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: of, Layers: []v1.Descriptor{layer},
	})
	return conf, manifest, err
}

// layerType is the media type of a layer, as OCI calls it.
func layerType(media string) types.MediaType {
	if t := types.MediaType(media); t != types.DockerLayer {
		return t
	}
	return types.OCILayer
}

const (
	maxConfig = 64 << 10 // bytes of a result's config: it has a layer and two labels
	// ahead is by how much the clock of who made a result may be ahead of ours.
	ahead = 24 * time.Hour
)

// Read takes what was found as the result of the step with a key.
func Read(key string, img *registry.Image) (c request.CachedStep, err error) {
	if len(img.Config) > maxConfig || len(img.Manifest) > 2*maxConfig {
		return c, fmt.Errorf("%w: a config of %d bytes, a manifest of %d", errForm, len(img.Config), len(img.Manifest))
	}
	var conf config
	if err := json.Unmarshal(img.Config, &conf); err != nil {
		return c, fmt.Errorf("%w: %w", errForm, err)
	}
	result := conf.Config.Labels[resultLabel]
	for _, form := range []struct {
		ok   bool
		what string
	}{
		{conf.Config.Labels[keyLabel] == key, "it is not called " + key},
		{result == "" || keyForm.MatchString(result), "malformed " + resultLabel},
		{len(img.Layers) == 1 && len(img.DiffIDs) == 1, fmt.Sprintf("it has %d layers", len(img.Layers))},
		{conf.Created.Year() >= 1970 && time.Until(conf.Created) < ahead, fmt.Sprintf("it is of the year %d", conf.Created.Year())},
	} {
		if !form.ok {
			return c, fmt.Errorf("%w: %s", errForm, form.what)
		}
	}
	l := img.Layers[0]
	if l.MediaType != types.OCILayer && l.MediaType != types.OCILayerZStd {
		return c, fmt.Errorf("%w: a layer of type %.80q", errForm, l.MediaType)
	}
	return request.CachedStep{
		Key: result, DiffID: img.DiffIDs[0].String(), Digest: l.Digest.String(), Size: l.Size, Media: string(l.MediaType),
		Created: conf.Created.UTC(), Pulled: true,
	}, nil
}
