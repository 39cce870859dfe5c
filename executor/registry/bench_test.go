package registry_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// BenchmarkTransfer pushes an image with layers of random bytes to a
// docker-registry and pulls it again.
func BenchmarkTransfer(b *testing.B) {
	for _, layers := range []int{1, 4} {
		const total = 1 << 30
		ca := registrytest.NewCA(b)
		for _, kind := range []string{"plain", "tls"} {
			opt, cfg := registrytest.Options{}, registry.Config{}
			if kind == "tls" {
				opt.TLS, cfg.Roots = ca, ca.PEM
			}
			b.Run(fmt.Sprintf("%s/%d layers", kind, layers), func(b *testing.B) { transfer(b, opt, cfg, layers, total/layers) })
		}
	}
}

func transfer(b *testing.B, opt registrytest.Options, cfg registry.Config, layers, size int) {
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.Background()
	dir := b.TempDir()
	st, err := store.Open(dir)
	must(err)
	var m v1.Manifest
	m.SchemaVersion, m.MediaType = 2, types.OCIManifestSchema1
	ids := make([]string, layers)
	for i := range layers {
		w, err := st.Create()
		must(err)
		_, err = io.CopyN(w, rand.Reader, int64(size))
		must(err)
		h, n, err := w.Commit()
		must(err)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCILayer, Digest: h, Size: n})
		ids[i] = fmt.Sprintf("%q", h)
	}
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[` + join(ids) + `]}}`)
	h, err := st.Put(config)
	must(err)
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: h, Size: int64(len(config))}
	raw := asJSON(b, m)
	h, err = st.Put(raw)
	must(err)
	desc := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: h, Size: int64(len(raw))}
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(size) * int64(layers))
		for range b.N {
			b.StopTimer()
			r := registrytest.Start(b, opt)
			c, err := registry.New(cfg)
			must(err)
			b.StartTimer()
			must(c.Push(ctx, st, desc, r.Addr+"/x:1", nil))
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(int64(size) * int64(layers))
		r := registrytest.Start(b, opt)
		c, err := registry.New(cfg)
		must(err)
		must(c.Push(ctx, st, desc, r.Addr+"/x:1", nil))
		b.ResetTimer()
		for range b.N {
			b.StopTimer()
			to, err := store.Open(b.TempDir())
			must(err)
			img, err := c.Resolve(ctx, r.Addr+"/x:1", amd64)
			must(err)
			b.StartTimer()
			done := make(chan error)
			for _, l := range img.Layers {
				go func() { done <- c.Pull(ctx, img, l, to, nil) }()
			}
			for range img.Layers {
				must(<-done)
			}
		}
	})
}

func join(s []string) string {
	out := ""
	for i, v := range s {
		if i > 0 {
			out += ","
		}
		out += v
	}
	return out
}
