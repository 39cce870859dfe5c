package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Layout is an OCI image layout (image-spec, image-layout.md) that somebody
// else wrote. What it says is checked like the answers of a registry, and no
// link in it is followed. It is safe for concurrent use.
type Layout struct {
	dir string
	mu  sync.Mutex // one blob is copied at a time
}

// OpenLayout opens the layout in dir.
func OpenLayout(dir string) (*Layout, error) {
	l := &Layout{dir: dir}
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	b, err := l.read("oci-layout")
	if err == nil {
		err = json.Unmarshal(b, &version)
	}
	switch {
	case err != nil:
		return nil, l.explain("open", err)
	case !strings.HasPrefix(version.Version, "1."):
		return nil, l.explain("open", &formError{"version " + clean(version.Version) + " of image layouts is not supported"})
	}
	return l, nil
}

func (l *Layout) explain(what string, err error) error {
	return &Error{Class: request.ClassResolve, Msg: what + " OCI layout: " + clean(err.Error()), Err: err}
}

// Resolve finds the image of platform p that ref means: a digest, a tag, or
// empty for the one that is tagged latest, else the only one that there is.
func (l *Layout) Resolve(ref string, p v1.Platform) (*Image, error) {
	img, err := l.resolve(ref, p)
	if err != nil {
		return nil, l.explain("resolve "+clean(ref)+" in", err)
	}
	return img, nil
}

func (l *Layout) resolve(ref string, p v1.Platform) (*Image, error) {
	d, err := l.find(ref)
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: ref}
	for depth := 0; ; depth++ {
		if img.Manifest, err = l.metadata(&d); err != nil {
			return nil, err
		}
		if img.MediaType, err = mediaType(img.Manifest, string(d.MediaType)); err != nil {
			return nil, err
		}
		if img.Digest = d.Digest; depth == 0 {
			img.Root = d.Digest
		}
		if img.MediaType.IsImage() {
			break
		}
		if depth == maxNesting {
			return nil, &formError{"indexes are nested too deeply"}
		}
		if d, err = choose(img.Manifest, p); err != nil {
			return nil, err
		}
	}
	m, err := parseImage(img.Manifest)
	if err != nil {
		return nil, err
	}
	if img.Config, err = l.metadata(&m.Config); err != nil {
		return nil, err
	}
	cfg, err := parseConfig(img.Config, m)
	if err != nil {
		return nil, err
	}
	img.Layers, img.DiffIDs, img.Platform = m.Layers, cfg.RootFS.DiffIDs, cfg.platform()
	return img, nil
}

// find finds the descriptor of what ref means. A digest need not be in the
// index; then the size is -1.
func (l *Layout) find(ref string) (v1.Descriptor, error) {
	b, err := l.read("index.json")
	if err != nil {
		return v1.Descriptor{}, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(b, &index); err != nil {
		return v1.Descriptor{}, &formError{"malformed index.json: " + clean(err.Error())}
	}
	if strings.Contains(ref, ":") {
		h, err := v1.NewHash(ref)
		if err != nil {
			return v1.Descriptor{}, &formError{"malformed digest"}
		}
		for _, d := range index.Manifests {
			if d.Digest == h {
				return d, checkDescriptor(d)
			}
		}
		d := v1.Descriptor{Digest: h, Size: -1}
		return d, checkDescriptor(v1.Descriptor{Digest: h})
	}
	tag := ref
	if tag == "" {
		tag = "latest"
	}
	var names []string
	for _, d := range index.Manifests {
		if name := d.Annotations["io.containerd.image.name"]; name == tag {
			return d, checkDescriptor(d)
		}
		name := d.Annotations["org.opencontainers.image.ref.name"]
		if name == tag {
			return d, checkDescriptor(d)
		}
		if name != "" {
			names = append(names, clean(name))
		}
	}
	if ref == "" && len(index.Manifests) == 1 {
		return index.Manifests[0], checkDescriptor(index.Manifests[0])
	}
	slices.Sort(names)
	return v1.Descriptor{}, &formError{fmt.Sprintf("no image is tagged %s; there are %d, with the tags: %s", clean(tag), len(index.Manifests), strings.Join(names, ", "))}
}

// metadata reads a small blob whole; a size that is not known is filled in.
func (l *Layout) metadata(d *v1.Descriptor) ([]byte, error) {
	if err := checkDescriptor(v1.Descriptor{Digest: d.Digest}); err != nil {
		return nil, err
	}
	b, err := l.read(blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	if d.Size < 0 {
		d.Size = int64(len(b))
	}
	if got := sum(b); got != d.Digest || int64(len(b)) != d.Size {
		return nil, &mismatchError{want: d.Digest, got: got, wantSize: d.Size, gotSize: int64(len(b))}
	}
	return b, nil
}

// Pull copies a layer into st, unless it is there. It is copied whole before it
// gets its name, and its digest is checked on the way.
func (l *Layout) Pull(ctx context.Context, layer v1.Descriptor, st *store.Store, progress func(done int64)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st.Has(layer.Digest) {
		progress(layer.Size)
		return nil
	}
	if err := l.copy(ctx, layer, st, progress); err != nil {
		if errors.Is(err, unix.ENOSPC) || ctx.Err() != nil {
			return err
		}
		return l.explain("read layer "+layer.Digest.String()+" of", err)
	}
	return nil
}

func (l *Layout) copy(ctx context.Context, d v1.Descriptor, st *store.Store, progress func(int64)) error {
	if err := checkDescriptor(d); err != nil {
		return err
	}
	f, size, err := l.open(blobPath(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	if size != d.Size {
		return &mismatchError{want: d.Digest, wantSize: d.Size, gotSize: size}
	}
	b, err := st.Create()
	if err != nil {
		return err
	}
	defer b.Close()
	buf := make([]byte, 1<<20)
	for done := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.LimitReader(f, d.Size+1-done).Read(buf)
		if _, werr := b.Write(buf[:n]); werr != nil {
			return werr
		}
		done += int64(n)
		progress(done)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := b.Sum(); got != d.Digest {
		return &mismatchError{want: d.Digest, got: got, wantSize: d.Size, gotSize: size}
	}
	_, _, err = b.Commit()
	return err
}

// read reads a small file whole.
func (l *Layout) read(name string) ([]byte, error) {
	f, size, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > store.MaxMetadata {
		return nil, &formError{fmt.Sprintf("%s has %d bytes, more than %d", name, size, store.MaxMetadata)}
	}
	return io.ReadAll(io.LimitReader(f, store.MaxMetadata))
}

// open opens a regular file of the layout.
func (l *Layout) open(name string) (*os.File, int64, error) {
	dir, err := os.Open(l.dir)
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	// Not os.Root: gVisor follows links where that relies on O_NOFOLLOW.
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, // it could be a FIFO
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &formError{name + " is not a regular file"}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
