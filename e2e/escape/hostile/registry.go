package hostile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a registry in memory that keeps to the protocol but where a rule
// says otherwise.
type Registry struct {
	*Server
	t    testing.TB
	mind http.Handler
}

// StartRegistry starts one.
func StartRegistry(t testing.TB, o Options, rules ...Rule) *Registry {
	t.Helper()
	mind := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	o.Back = mind
	return &Registry{Server: Serve(t, o, rules...), t: t, mind: mind}
}

// put gives the registry something without a network, past all rules.
func (r *Registry) put(method, path, mediaType, body string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", mediaType)
	w := httptest.NewRecorder()
	r.mind.ServeHTTP(w, req)
	if w.Code >= http.StatusBadRequest {
		r.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w
}

// Blob keeps a blob in repo and returns its descriptor.
func (r *Registry) Blob(repo, mediaType string, data []byte) v1.Descriptor {
	r.t.Helper()
	d := v1.Descriptor{MediaType: types.MediaType(mediaType), Size: int64(len(data)), Digest: hashOf(data)}
	r.put(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.Digest.String(), "application/octet-stream", string(data))
	return d
}

// Manifest keeps a manifest, whatever it says, under a tag and returns its
// digest.
func (r *Registry) Manifest(repo, tag, mediaType string, data []byte) v1.Hash {
	r.t.Helper()
	r.put(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, string(data))
	return hashOf(data)
}

// Image keeps an image of layers, tar archives as they are, and returns its
// reference.
func (r *Registry) Image(repo string, config v1.Config, layers ...[]byte) string {
	r.t.Helper()
	ref := repo + ":1"
	r.Manifest(repo, "1", string(types.OCIManifestSchema1), r.ImageManifest(repo, config, layers...))
	return r.Addr + "/" + ref
}

// ImageManifest keeps the blobs of an image and returns its manifest.
func (r *Registry) ImageManifest(repo string, config v1.Config, layers ...[]byte) []byte {
	r.t.Helper()
	file := v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: config, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, l := range layers {
		file.RootFS.DiffIDs = append(file.RootFS.DiffIDs, hashOf(l))
		m.Layers = append(m.Layers, r.Blob(repo, string(types.OCIUncompressedLayer), l))
	}
	m.Config = r.Blob(repo, string(types.OCIConfigJSON), r.json(file))
	return r.json(m)
}

func (r *Registry) json(v any) []byte {
	r.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func hashOf(b []byte) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(b))}
}

// Challenge is a 401 with a WWW-Authenticate header.
func Challenge(header string) http.HandlerFunc {
	return Answer(http.StatusUnauthorized, http.Header{"Www-Authenticate": {header}}, []byte(`{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`))
}

// Bearer asks for a token of realm.
func Bearer(realm string) http.HandlerFunc {
	return Challenge(fmt.Sprintf(`Bearer realm="%s",service="s"`, realm))
}

// Token lets in who has the token, and sends others for it to realm.
func (r *Registry) Token(realm, token string) {
	r.On(Rule{Do: guarded("Bearer "+token, fmt.Sprintf(`Bearer realm="%s",service="s"`, realm), r.mind)})
}

// Basic lets in user builder with the password.
func (r *Registry) Basic(password string) {
	r.On(Rule{Do: guarded("Basic "+base64.StdEncoding.EncodeToString([]byte("builder:"+password)), `Basic realm="r"`, r.mind)})
}

func guarded(authorization, challenge string, then http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != authorization {
			Challenge(challenge)(w, r)
			return
		}
		then.ServeHTTP(w, r)
	}
}

// Tokens is a token server that gives everybody a token.
func Tokens(token string) http.HandlerFunc {
	return Answer(http.StatusOK, http.Header{"Content-Type": {"application/json"}}, fmt.Appendf(nil, `{"token":%q,"expires_in":300}`, token))
}
