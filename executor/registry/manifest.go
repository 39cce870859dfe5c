package registry

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// accepted are the kinds of manifest that are asked for. Schema 1 is not among
// them: some registries would make one up.
func accepted() []string {
	return []string{
		string(types.OCIImageIndex), string(types.OCIManifestSchema1),
		string(types.DockerManifestList), string(types.DockerManifestSchema2),
	}
}

// shape holds the keys that tell a manifest, an index and a schema 1 manifest
// apart.
type shape struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
	Manifests     json.RawMessage `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

// mediaType decides what a manifest is. header is the Content-Type that came
// with it (or its descriptor's media type). Bytes that could be read as
// both an image and an index, or that say of themselves something else than
// the header does, are refused (CVE-2021-41190).
func mediaType(raw []byte, header string) (types.MediaType, error) {
	var s shape
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", &formError{"the manifest is no JSON object: " + clean(err.Error())}
	}
	outer, _, err := mime.ParseMediaType(header)
	if err != nil {
		outer = ""
	}
	if s.FSLayers != nil || s.SchemaVersion == 1 || types.MediaType(outer).IsSchema1() {
		return "", &formError{"the image has a manifest of schema 1, which is not supported (push it again with a current tool)"}
	}
	if slices.Contains([]string{"application/json", "application/octet-stream", "text/plain"}, outer) {
		outer = "" // a plain file server: it does not know
	}
	if s.MediaType != "" && outer != "" && s.MediaType != outer {
		return "", &formError{fmt.Sprintf("the manifest says that it is %s, but it was delivered as %s", clean(s.MediaType), clean(outer))}
	}
	mt := types.MediaType(outer)
	if outer == "" {
		mt = types.MediaType(s.MediaType)
	}
	switch {
	case mt.IsImage() && s.Manifests != nil:
		return "", &formError{"the manifest is ambiguous: an image with manifests"}
	case mt.IsIndex() && (s.Config != nil || s.Layers != nil):
		return "", &formError{"the manifest is ambiguous: an index with a config or layers"}
	case mt.IsImage(), mt.IsIndex():
		return mt, nil
	case mt == "":
		return "", &formError{"the manifest has no media type"}
	}
	return "", &formError{"manifests of type " + clean(string(mt)) + " are not supported"}
}

// parseImage reads the manifest of an image that files are to be taken from.
func parseImage(raw []byte) (*v1.Manifest, error) {
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		if !l.MediaType.IsLayer() || strings.HasSuffix(string(l.MediaType), "+encrypted") {
			return nil, &formError{"layers of type " + clean(string(l.MediaType)) + " are not supported"}
		}
	}
	return m, nil
}

// parseManifest reads a manifest of an image, or of what is kept in the form of
// one, such as an attestation.
func parseManifest(raw []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, &formError{"malformed manifest: " + clean(err.Error())}
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	if m.Config.Size > store.MaxMetadata {
		return nil, &formError{fmt.Sprintf("the config has %d bytes, more than %d", m.Config.Size, store.MaxMetadata)}
	}
	return &m, nil
}

// checkDescriptor refuses what could not be checked or would name no file of
// the store. The form of the digest was checked when it was decoded.
func checkDescriptor(d v1.Descriptor) error {
	if d.Digest.Algorithm != "sha256" {
		if d.Digest.Algorithm == "" {
			return &formError{"the manifest lacks a digest"}
		}
		return &formError{"digests of type " + clean(d.Digest.Algorithm) + " are not supported"}
	}
	if d.Size < 0 {
		return &formError{fmt.Sprintf("the manifest gives %s a size of %d bytes", d.Digest, d.Size)}
	}
	return nil
}

// configFile is the part of an image config that is needed here.
type configFile struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version"`
	OSFeatures   []string `json:"os.features"`
	Variant      string   `json:"variant"`
	RootFS       struct {
		Type    string    `json:"type"`
		DiffIDs []v1.Hash `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfig reads an image config that belongs to a manifest with n layers.
func parseConfig(raw []byte, m *v1.Manifest) (*configFile, error) {
	var c configFile
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, &formError{"malformed image config: " + clean(err.Error())}
	}
	if c.RootFS.Type != "layers" && len(m.Layers) > 0 {
		return nil, &formError{"it is no container image: its config is of type " + clean(string(m.Config.MediaType))}
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, &formError{fmt.Sprintf("the config lists %d layers, the manifest %d", len(c.RootFS.DiffIDs), len(m.Layers))}
	}
	for _, d := range c.RootFS.DiffIDs {
		if d.Algorithm != "sha256" {
			return nil, &formError{"digests of type " + clean(d.Algorithm) + " are not supported"}
		}
	}
	return &c, nil
}

func (c *configFile) platform() v1.Platform {
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures}
}
