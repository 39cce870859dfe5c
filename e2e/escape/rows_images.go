package escape

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
)

// superlinear compares the times of archives of some entries and of twice as many.
func superlinear(t *Target) Outcome {
	const entries = 5_000
	took := func(n int) time.Duration {
		base := t.Base(manyEntries(t, n, false), manyEntries(t, n, true))
		r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY nonce /\nRUN echo $(ls /even | wc -l) $(cat /nonce)\n"})
		r.Done(fmt.Sprintf(`%d $NONCE`, n/4))
		return r.Took
	}
	nothing, once, twice := took(4), took(entries), took(2*entries)
	t.Logf("nothing %v, %d entries %v, %d entries %v", nothing, entries, once, 2*entries, twice)
	const slack, noise = 3, 5 * time.Second // of a busy machine
	if twice-nothing > slack*(once-nothing)+noise {
		t.Errorf("twice as many entries take %v, not %v", twice-nothing, once-nothing)
	}
	return Contained
}

// manyEntries alternates between two directories and has a hard link for each two
// files; as the layer after it, it hides half of them, one by one and in
// directories of their own that are opaque.
func manyEntries(t *Target, n int, hide bool) []byte {
	t.Helper()
	var all []hostile.Entry
	for i := range n / 2 {
		even, odd := fmt.Sprintf("even/%d", i), fmt.Sprintf("odd/%d/f", i)
		switch {
		case hide && i%2 == 0:
			all = append(all, file(fmt.Sprintf("even/.wh.%d", i), ""), file(fmt.Sprintf("odd/%d/.wh..wh..opq", i), ""))
		case !hide:
			all = append(all, file(even, "x"), hostile.Entry{Name: odd, Type: tar.TypeLink, Link: even})
		}
	}
	return hostile.Tar(t, all...)
}

// headerBombs are headers that Go's own writer would not write.
func headerBombs(t *Target) Outcome {
	const endless = 3 << 20 // bytes: more than any header may have
	records := strings.Repeat("13 abcd=efgh\n", endless/13)
	sparse := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=x\n28 GNU.sparse.realsize=1000\n"
	archives := map[string][]byte{
		"PAX value":        join(rawHeader("x", 'x', octal(endless)), []byte(fmt.Sprintf("%d path=%s\n", endless, strings.Repeat("a", endless))[:endless]), rawHeader("f", '0', octal(0))),
		"PAX records":      join(rawHeader("x", 'x', octal(len(records))), []byte(records), rawHeader("f", '0', octal(0))),
		"PAX size":         join(rawHeader("x", 'x', octal(19)), []byte("19 size=-123456789\n"), rawHeader("f", '0', octal(0))),
		"sparse map":       join(rawHeader("x", 'x', octal(len(sparse))), []byte(sparse), rawHeader("f", '0', octal(endless)), []byte(strings.Repeat("1000000000\n", endless/11+1)[:endless])),
		"old sparse chain": join(oldSparse(), bytes.Repeat(sparseContinued(), endless/512)),
		"negative size":    join(rawHeader("f", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0")),
		"long name":        join(rawHeader("x", 'L', octal(endless)), bytes.Repeat([]byte("a"), endless), rawHeader("f", '0', octal(0))),
	}
	complaints := map[string]string{}
	for what := range archives {
		complaints[what] = `(?i)invalid archive|exceeds a limit`
	}
	return refusedLayers(t, complaints, func(what string) []byte { return archives[what] })
}

const block = 512 // bytes, of a tar archive

// join puts headers and contents together, each filled up to a block.
func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
		all = append(all, make([]byte, (block-len(p)%block)%block)...)
	}
	return append(all, make([]byte, 2*block)...)
}

// rawHeader is a header in USTAR's form; size as it stands in the field.
func rawHeader(name string, kind byte, size string) []byte {
	h := make([]byte, block)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:136], size)
	copy(h[136:], "00000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	return checksum(h)
}

func checksum(h []byte) []byte {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

// oldSparse is a header of GNU tar's old form whose map goes on in the next
// block; sparseContinued is such a block, with one more after it.
func oldSparse() []byte {
	h := rawHeader("f", 'S', octal(0))
	copy(h[257:], "ustar  \x00")
	h[482] = 1
	copy(h[483:], octal(1<<30))
	return checksum(h)
}

func sparseContinued() []byte {
	b := make([]byte, block)
	b[504] = 1
	return b
}

// decompressionBombs are layers that become too large, and ones that are not what
// their digests say.
func decompressionBombs(t *Target) Outcome {
	reg := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	const limits = `exceeds a limit`
	for what, b := range map[string]struct {
		kind  string
		blob  []byte
		error string
	}{
		"gzip, many members": {string(types.OCILayer), gzipBomb(t, rawHeader("zeros", '0', "\x80\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00")), limits},
		"zstd":               {string(types.OCILayerZStd), zstdBomb(t, rawHeader("zeros", '0', octal(7<<30))), limits},
		"8 EiB of holes":     {string(types.OCIUncompressedLayer), join(rawHeader("f", '0', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")), `exceeds a limit|invalid archive`},
		"wrong diffID":       {string(types.OCIUncompressedLayer), hostile.Tar(t, file("f", "x")), `(?i)digest|diff`},
		"trailing garbage":   {string(types.OCILayer), append(packedTar(t), "garbage"...), `(?i)invalid|digest|gzip`},
	} {
		t.Log(what)
		ref := rawImage(t, reg, b.kind, b.blob)
		r := t.Build(Build{Dockerfile: "FROM " + ref + "\nCOPY nonce /\nRUN [\"/x\"]\n", Args: []string{"--insecure-registry", reg.Addr, "--work-size", "1g"}})
		r.Rejected(b.error)
	}
	return Limited
}

// rawImage keeps an image with one layer, a blob as it is, in a hostile registry.
func rawImage(t *Target, reg *hostile.Registry, kind string, blob []byte) string {
	t.Helper()
	config, err := json.Marshal(v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers",
		DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	must(t, err)
	m, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: reg.Blob("raw", string(types.OCIConfigJSON), config),
		Layers: []v1.Descriptor{reg.Blob("raw", kind, blob)}})
	must(t, err)
	return reg.Addr + "/raw@" + reg.Manifest("raw", "1", string(types.OCIManifestSchema1), m).String()
}

func packedTar(t *Target) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(hostile.Tar(t, file("f", "x")))
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// gzipBomb is a header and many times the same member with a MiB of zeros.
func gzipBomb(t *Target, header []byte) []byte {
	t.Helper()
	member := func(data []byte) []byte {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		must(t, err)
		_, err = w.Write(data)
		must(t, err)
		must(t, w.Close())
		return b.Bytes()
	}
	return append(member(header), bytes.Repeat(member(make([]byte, 1<<20)), 100)...)
}

// zstdBomb is the same with frames of zstd, which need less for zeros.
func zstdBomb(t *Target, header []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	must(t, err)
	defer w.Close()
	return append(w.EncodeAll(header, nil), bytes.Repeat(w.EncodeAll(make([]byte, 16<<20), nil), 7<<6)...)
}

func layoutIDs(t *Target) Outcome {
	up := strings.Repeat("../", 12) + strings.TrimPrefix(t.Dir, "/") + "/canary"
	ids := map[string]string{
		"path": "sha256:" + up, "algorithm": "../../../etc:passwd", "NUL": "sha256:" + strings.Repeat("0", 63) + "\x00",
	}
	for what, id := range ids {
		t.Log(what)
		b, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
			"mediaType": types.OCIManifestSchema1, "size": 100, "digest": id, "annotations": map[string]string{"org.opencontainers.image.ref.name": up}}}})
		must(t, err)
		r := t.Build(Build{Dockerfile: "FROM c\nRUN echo $NONCE ran\n", Args: []string{"--build-context", "c=oci-layout://" + filepath.Join(t.Dir, "ctx", "l")},
			Files: map[string]string{"l/oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "l/index.json": string(b)}})
		r.Rejected(`(?i)context c|digest|unsupported|invalid`)
		r.Hides(`\d $NONCE ran`)
	}
	// What docker save writes, with a repository of paths.
	saved := hostile.Tar(t, file("manifest.json", `[{"Config":"../../../etc/passwd","Layers":["../../../../etc/shadow"],"RepoTags":["../x:1"]}]`),
		file("repositories", `{"../../x":{"latest":"../../../etc"}}`), link("../../etc/x/layer.tar", t.Dir+"/canary"))
	t.Build(Build{Context: "-", Stdin: bytes.NewReader(saved)}).Rejected(`(?i)dockerfile`)
	return Rejected
}

// honest reads the manifest of busybox, and its config and layer into a registry.
func honest(t *Target, reg *hostile.Registry) []byte {
	t.Helper()
	ref, err := name.ParseReference(t.Busybox, name.Insecure)
	must(t, err)
	img, err := remote.Image(ref, remote.WithAuth(&t.Login))
	must(t, err)
	must(t, eachBlob(img, func(d v1.Descriptor, b []byte) { reg.Blob("r", string(d.MediaType), b) }))
	raw, err := img.RawManifest()
	must(t, err)
	return raw
}

func eachBlob(img v1.Image, keep func(v1.Descriptor, []byte)) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	keep(m.Config, config)
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		keep(m.Layers[i], b)
	}
	return nil
}

// from builds on r:TAG of a hostile registry; nothing of it may run.
func from(t *Target, reg *hostile.Registry, tag string, args ...string) *Result {
	t.Helper()
	r := t.Build(Build{Dockerfile: "FROM " + reg.Addr + "/r" + tag + "\nRUN echo $NONCE ran\n",
		Args: append([]string{"--insecure-registry", reg.Addr, "--image-download-retry", "0"}, args...)})
	r.Hides(`\d $NONCE ran`)
	return r
}

func manifestConfusion(t *Target) Outcome {
	reg := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	raw := honest(t, reg)
	var m map[string]any
	must(t, json.Unmarshal(raw, &m))
	m["manifests"] = []any{map[string]any{"mediaType": types.OCIManifestSchema1, "digest": "sha256:" + strings.Repeat("1", 64), "size": 1, "platform": map[string]string{"os": "linux", "architecture": "amd64"}}}
	both, err := json.Marshal(m)
	must(t, err)
	delete(m, "mediaType")
	untyped, err := json.Marshal(m)
	must(t, err)
	typed := func(kind types.MediaType, body []byte) http.HandlerFunc {
		return hostile.Answer(http.StatusOK, http.Header{"Content-Type": {string(kind)}}, body)
	}
	for tag, do := range map[string]http.HandlerFunc{
		"both": typed(types.OCIManifestSchema1, both), "both-index": typed(types.OCIImageIndex, both), "untyped": typed(types.OCIImageIndex, untyped),
		"flips": typed(types.OCIImageIndex, raw), "html": typed("text/html", raw),
	} {
		t.Log(tag)
		reg.On(hostile.Rule{Path: "/manifests/" + tag, Do: do})
		from(t, reg, ":"+tag).Rejected(`(?i)manifest`)
	}
	// By digest, what comes has to have it.
	reg.On(hostile.Rule{Path: "/manifests/sha256:", Do: typed(types.OCIManifestSchema1, raw)})
	from(t, reg, "@sha256:"+strings.Repeat("2", 64)).Rejected(`(?i)digest|sha256`)
	return Rejected
}

func endlessManifests(t *Target) Outcome {
	reg := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	image := http.Header{"Content-Type": {string(types.OCIManifestSchema1)}}
	index := http.Header{"Content-Type": {string(types.OCIImageIndex)}}
	const most = 64 << 20
	entry := `{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:` + strings.Repeat("1", 64) + `","size":2},`
	reg.On(
		hostile.Rule{Path: "/manifests/endless", Do: hostile.Endless(image, bytes.Repeat([]byte(" "), 64<<10), most)},
		hostile.Rule{Path: "/manifests/entries", Do: hostile.Endless(index, []byte(`{"schemaVersion":2,"manifests":[`+strings.Repeat(entry, 500)), most)},
		hostile.Rule{Path: "/manifests/slow", Do: func(w http.ResponseWriter, r *http.Request) {
			for range 600 {
				if _, err := w.Write([]byte(" ")); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}})
	from(t, reg, ":endless").Rejected(`(?i)manifest|larger|too|bytes`)
	from(t, reg, ":entries").Rejected(`(?i)manifest|larger|too|bytes`)
	const timedOut = 124
	slow := from(t, reg, ":slow", "--timeout", "5s")
	slow.Rejected(`(?i)time`)
	if slow.Status != timedOut {
		t.Errorf("status %d", slow.Status)
	}
	// An index of indexes, and a config that is said to be, and is, too large.
	body := []byte("{}")
	for range 8 {
		id := fmt.Sprintf("sha256:%x", sha256.Sum256(body))
		reg.On(hostile.Rule{Path: "/manifests/" + id, Do: hostile.Answer(http.StatusOK, index, body)})
		body = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, types.OCIImageIndex, types.OCIImageIndex, id, len(body))
	}
	reg.On(hostile.Rule{Path: "/manifests/nested", Do: hostile.Answer(http.StatusOK, index, body)})
	from(t, reg, ":nested").Rejected(`(?i)index|manifest|image|platform`)
	config := reg.Blob("r", string(types.OCIConfigJSON), append([]byte(`{"os":"linux"}`), bytes.Repeat([]byte(" "), 8<<20)...))
	m, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config})
	must(t, err)
	reg.Manifest("r", "config", string(types.OCIManifestSchema1), m)
	from(t, reg, ":config").Rejected(`config has \d+ bytes`)
	return Rejected
}

func oddDigests(t *Target) Outcome {
	reg := hostile.StartRegistry(t, hostile.Options{Listener: t.Public()})
	raw := honest(t, reg)
	var m v1.Manifest
	must(t, json.Unmarshal(raw, &m))
	hex := m.Layers[0].Digest.Hex
	for tag, digest := range map[string]string{
		"path": "sha256:../../../etc/passwd", "upper": "sha256:" + strings.ToUpper(hex), "short": "sha256:" + hex[:60], "kind": "md5:" + hex[:32], "none": "", "query": "sha256:" + hex[:62] + "?x",
	} {
		t.Log(tag, digest)
		body := strings.Replace(string(raw), "sha256:"+hex, digest, 1)
		reg.On(hostile.Rule{Path: "/manifests/" + tag, Do: hostile.Answer(http.StatusOK, http.Header{"Content-Type": {string(m.MediaType)}}, []byte(body))})
		from(t, reg, ":"+tag).Rejected(`(?i)manifest|digest`)
		if n := reg.Asked("", "passwd"); n > 0 {
			t.Error("the path was asked for")
		}
	}
	for _, ref := range []string{"@sha256:../../x", "@md5:" + hex[:32]} {
		from(t, reg, ref).Rejected(`(?i)reference|digest|image`)
	}
	return Rejected
}

func userOverflow(t *Target) Outcome {
	for _, user := range []string{"4294967296", "-1", "0x0", "1000:99999999999", "2147483648"} {
		base := t.BaseWith(func(c *v1.Config) { c.User = user })
		for _, dockerfile := range []string{"FROM $BUSYBOX\nUSER " + user, "FROM " + base}[:1+len(user)%2] {
			r := t.Build(Build{Dockerfile: dockerfile + "\nRUN echo $NONCE ran as $(id -u)\n"})
			r.Rejected(`(?i)user|group|uid|gid`)
			r.Hides(`$NONCE ran as \d`)
		}
	}
	return Rejected
}

func configPaths(t *Target) Outcome {
	up := strings.Repeat("../", 12)
	base := t.BaseWith(func(c *v1.Config) {
		c.WorkingDir = up + t.Dir
		c.Volumes = map[string]struct{}{up + t.Dir: {}, "/proc/self/fd/3": {}, "/etc": {}, "../..": {}}
		c.Env = append(c.Env, "LD_PRELOAD=/evil.so", "HOME="+up, "TMPDIR=/proc/self/root", "GODEBUG=x", "GOTRACEBACK=crash", "=x", "novalue", "BASH_ENV=/x", "KBUILD_BIN=/x")
		c.Entrypoint, c.Cmd, c.Shell = []string{"/proc/self/exe"}, []string{up}, []string{"/bin/sh", "-c"}
		c.ExposedPorts = map[string]struct{}{"../../x/tcp": {}}
		c.StopSignal, c.Hostname, c.Domainname = "../../x", "../../x", "x\ny"
	})
	r := t.Build(Build{Dockerfile: "FROM " + base + "\nCOPY nonce sub/\nRUN pwd; ls -la . / /etc; echo ran $(cat sub/nonce)\n"})
	if r.Status != 0 {
		r.Rejected(`(?i)working directory|config|volume|port`)
		t.Fatal("the image is refused: this looks at nothing")
	}
	return r.Done(`\d `+t.Dir+`$`, `ran $NONCE`)
}

func runtimeLabels(t *Target) Outcome {
	const word = "evil-label"
	labels := map[string]string{}
	for _, key := range []string{"dev.gvisor.flag.host-uds", "dev.gvisor.flag.overlay2", "dev.gvisor.internal.seccomp.x", "dev.gvisor.spec.mount.x.source", "dev.gvisor.spec.rootfs.source",
		"io.containerd.runc.v2.group", "io.kubernetes.cri.container-type", "nri.io/command", "org.criu.config", "run.oci.hooks.stdout", "io.katacontainers.config.hypervisor.path"} {
		labels[key] = word
	}
	base := t.BaseWith(func(c *v1.Config) { c.Labels = labels })
	dockerfile := "FROM " + base + "\nCOPY nonce /\n"
	var args []string
	for key := range labels {
		dockerfile += "LABEL " + key + "=" + word + "2\n"
		args = append(args, "--label", key+"="+word+"3", "--annotation", key+"="+word+"4")
	}
	specs := t.specs(func() {
		t.Build(Build{Dockerfile: dockerfile + "RUN echo ran $(cat /nonce); sleep 0.3\n", Args: args}).Done(`ran $NONCE`)
	})
	specs.plain(word, "host-uds", "nri.io", "criu")
	return Inert
}
