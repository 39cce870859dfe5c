package provenance

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Media types (image-spec, media-types.md) and BuildKit's names
// (docs/attestations/attestation-storage.md).
const (
	mediaIndex          = "application/vnd.oci.image.index.v1+json"
	mediaManifest       = "application/vnd.oci.image.manifest.v1+json"
	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaEmpty          = "application/vnd.oci.empty.v1+json"
	mediaConfig         = "application/vnd.oci.image.config.v1+json"
	// PayloadType is the media type of a statement.
	PayloadType   = "application/vnd.in-toto+json"
	mediaEnvelope = "application/vnd.dsse.envelope.v1+json"

	artifactType        = "application/vnd.docker.attestation.manifest.v1+json"
	predicateAnnotation = "in-toto.io/predicate-type"
	referenceType       = "vnd.docker.reference.type"
	referenceDigest     = "vnd.docker.reference.digest"
)

// emptyConfig is the content of the empty config (image-spec, manifest.md).
const emptyConfig = "{}"

// descriptor is a descriptor with all that is used of it here.
type descriptor struct {
	request.Descriptor
	Data        []byte            `json:"data,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type manifest struct {
	SchemaVersion int                 `json:"schemaVersion"`
	MediaType     string              `json:"mediaType"`
	ArtifactType  string              `json:"artifactType,omitempty"`
	Config        descriptor          `json:"config"`
	Layers        []descriptor        `json:"layers"`
	Subject       *request.Descriptor `json:"subject,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Index makes an image index of the images and, for each, a manifest with its
// statement, as BuildKit does. Blobs are in the order in which they may be
// stored; root names the last of them, the index.
func Index(b Build, statements []Statement) (blobs [][]byte, root request.Descriptor, err error) {
	if len(statements) != len(b.Images) {
		return nil, root, fmt.Errorf("%d statements for %d images", len(statements), len(b.Images))
	}
	idx := index{SchemaVersion: 2, MediaType: mediaIndex, Annotations: b.annotations(request.OnIndex, "")}
	blobs = [][]byte{[]byte(emptyConfig)}
	var attested []descriptor
	for i, img := range b.Images {
		idx.Manifests = append(idx.Manifests, descriptor{
			Descriptor: img.Descriptor, Platform: platformOf(img.Platform),
			Annotations: b.annotations(request.OnManifestDescriptor, img.Platform),
		})
		more, d, err := attest(img.Descriptor, statements[i])
		if err != nil {
			return nil, root, err
		}
		blobs, attested = append(blobs, more...), append(attested, d)
	}
	idx.Manifests = append(idx.Manifests, attested...)
	raw, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return nil, root, fmt.Errorf("image index: %w", err)
	}
	return append(blobs, raw), describe(mediaIndex, raw), nil
}

// attest makes the manifest that attaches a statement to an image.
func attest(image request.Descriptor, s Statement) (blobs [][]byte, d descriptor, err error) {
	body, err := s.JSON()
	if err != nil {
		return nil, d, fmt.Errorf("statement: %w", err)
	}
	if len(body) > MaxStatement {
		return nil, d, fmt.Errorf("statement: %d bytes, more than %d", len(body), MaxStatement)
	}
	raw, err := json.MarshalIndent(manifest{
		SchemaVersion: 2, MediaType: mediaManifest, ArtifactType: artifactType,
		Config: descriptor{Descriptor: describe(mediaEmpty, []byte(emptyConfig)), Data: []byte(emptyConfig)},
		Layers: []descriptor{{
			Descriptor:  describe(PayloadType, body),
			Annotations: map[string]string{predicateAnnotation: s.PredicateType},
		}},
		Subject: &image,
	}, "", "  ")
	if err != nil {
		return nil, d, fmt.Errorf("attestation manifest: %w", err)
	}
	return [][]byte{body, raw}, descriptor{
		Descriptor:  describe(mediaManifest, raw),
		Platform:    &platform{Architecture: "unknown", OS: "unknown"},
		Annotations: map[string]string{referenceType: "attestation-manifest", referenceDigest: image.Digest},
	}, nil
}

// Attach makes of signed statements what cosign verify-attestation looks for:
// one manifest, under a tag for each digest that it is to be found by.
func Attach(envelopes [][]byte, digests []string) (blobs [][]byte, attached []request.Attached, err error) {
	config := struct {
		Architecture string   `json:"architecture"`
		OS           string   `json:"os"`
		Config       struct{} `json:"config"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}{}
	config.RootFS.Type = "layers"
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest}
	for _, e := range envelopes {
		blobs = append(blobs, e)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digestOf(e))
		m.Layers = append(m.Layers, descriptor{
			Descriptor:  describe(mediaEnvelope, e),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": "", "predicateType": PredicateType},
		})
	}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		return nil, nil, fmt.Errorf("signed attestation: %w", err)
	}
	m.Config.Descriptor = describe(mediaConfig, rawConfig)
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, nil, fmt.Errorf("signed attestation: %w", err)
	}
	d := describe(mediaManifest, raw)
	seen := map[string]bool{}
	for _, digest := range digests {
		if !seen[digest] {
			seen[digest] = true
			attached = append(attached, request.Attached{Descriptor: d, Tag: digestAlgorithm + "-" + hexOf(digest) + ".att"})
		}
	}
	return append(blobs, rawConfig, raw), attached, nil
}

func describe(media string, data []byte) request.Descriptor {
	return request.Descriptor{MediaType: media, Digest: digestOf(data), Size: int64(len(data))}
}

func platformOf(s string) *platform {
	p := strings.Split(s, "/")
	out := platform{OS: p[0], Architecture: p[1]}
	if len(p) > 2 {
		out.Variant = p[2]
	}
	return &out
}

// annotations are those of the request for a level; one for a platform wins
// over one for all.
func (b Build) annotations(level request.AnnotationLevel, platform string) map[string]string {
	var all map[string]string
	for _, bounded := range []bool{false, true} {
		for _, a := range b.Request.Annotations {
			if a.Level != level || (a.Platform != "") != bounded || bounded && a.Platform != platform {
				continue
			}
			if all == nil {
				all = map[string]string{}
			}
			all[a.Key] = a.Value
		}
	}
	return all
}
