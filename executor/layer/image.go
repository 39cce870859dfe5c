package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/erofs"
)

// Names in the root of a layer's image.
const (
	imageFiles   = "l"       // what the layer has, as a lower directory
	imageUnder   = "under"   // a layer tar for a lower below it: opaque directories
	imageOver    = "over"    // a layer tar for a lower above it
	imageImplied = "implied" // the directories that the layer does not describe
)

// ErrUnsuited is wrapped when a layer means something only on top of the layers
// below it, or is too large for Image: it has to be unpacked.
var ErrUnsuited = errors.New("the layer is no image of its own")

// maxNodes bounds the files of an image: each is in memory until it is complete.
const maxNodes = 1 << 20

// ImageOptions say how Image works.
type ImageOptions struct {
	Limits Limits
	// Spool opens a new file for reading and writing that nobody else has: what
	// cannot be in the image waits there. The caller removes it.
	Spool func() (*os.File, error)
}

// Image turns a layer blob, as it comes, into an EROFS image that can be mounted
// in the place of the directory that Unpack would make. It writes the image to w,
// but for its first block, and returns that and the digest of the uncompressed
// tar, trailing bytes included.
//
// gVisor reads no extended attributes and no device numbers of such an image, and what
// directories without an entry are like the layers below say. So it has further parts,
// which Lowers makes directories of.
//
// A layer whose meaning depends on those below it is ErrUnsuited: one with hard links
// to files that it does not have, or that hides what is in directories that it does not
// describe. Otherwise the errors are those of Unpack. After an error what was written is
// of no use.
func Image(ctx context.Context, r io.Reader, w io.Writer, opt ImageOptions) (first []byte, diffID v1.Hash, err error) {
	m := &meter{lim: opt.Limits.withDefaults()}
	in := &counted{r: r, m: m}
	d, f, err := Decompress(in)
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("make layer image: %w", err)
	}
	defer d.Close()
	if f == Bzip2 || f == Xz {
		return nil, v1.Hash{}, fmt.Errorf("make layer image: %w: compression %s is not supported", ErrInvalid, f)
	}
	sum := sha256.New()
	src := readAhead(ctx, decoded{d, in}, sum, m.read)
	defer src.Close()
	i := newImager(w, m, opt)
	defer i.close()
	if err := i.all(ctx, src); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("make layer image: %w", err)
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("make layer image: after the last entry: %w", err)
	}
	first, err = i.finish()
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("make layer image: %w", err)
	}
	return first, sumHash(sum), nil
}

// imager makes the tree of an image.
type imager struct {
	w     *erofs.Writer
	meter *meter
	opt   ImageOptions
	root  *erofs.Node
	nodes int

	described bool // there is an entry for the root
	// opaque are directories that hide what is below them, and hidden the names
	// that hide one.
	opaque map[*erofs.Node]bool
	hidden map[*erofs.Node][]string
	// implied are directories without an entry.
	implied map[*erofs.Node]bool
	over    over
}

func newImager(w io.Writer, m *meter, opt ImageOptions) *imager {
	root := erofs.NewDir()
	root.Mtime = time.Unix(0, 0)
	return &imager{
		w: erofs.NewWriter(w), meter: m, opt: opt, root: root,
		opaque: map[*erofs.Node]bool{}, hidden: map[*erofs.Node][]string{}, implied: map[*erofs.Node]bool{},
		over: newOver(opt.Spool),
	}
}

func (i *imager) close() { i.over.close() }

// all takes every entry in turn, the last of a name wins.
func (i *imager) all(ctx context.Context, r *ahead) error {
	rules := &applier{tree: &tree{overlay: true}, meter: i.meter}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && r.failure() != nil {
			return r.failure()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		err = i.entry(rules, h, tr)
		if errors.Is(err, erofs.ErrInvalid) {
			err = fmt.Errorf("%w: %w", ErrUnsuited, err)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
}

func (i *imager) entry(rules *applier, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return i.meter.entry(0)
	}
	if err := i.meter.entry(h.Size); err != nil {
		return err
	}
	if i.nodes++; i.nodes > maxNodes {
		return fmt.Errorf("%w: more than %d files", ErrUnsuited, maxNodes)
	}
	name, err := rules.clean(h.Name)
	if err != nil {
		return err
	}
	at, err := rules.attributes(h)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is not a directory", ErrInvalid)
		}
		i.described = true
		return i.setDir(i.root, "", at)
	}
	if strings.Contains(name, whiteoutPrefix) {
		if done, err := i.marker(name); done || err != nil {
			return err
		}
	}
	d, err := i.parent(name, i.imply)
	if err != nil {
		return err
	}
	return i.add(d, name, h, at, r)
}

// parent finds the directory of a name. Those that are missing on the way make says;
// symbolic links on it are left to Unpack.
func (i *imager) parent(name string, make func(d *erofs.Node, name string) (*erofs.Node, error)) (_ *erofs.Node, err error) {
	d := i.root
	if strings.Count(name, "/") > maxDepth {
		return nil, fmt.Errorf("%w: directories nested more than %d deep", ErrInvalid, maxDepth)
	}
	for {
		part, rest, more := strings.Cut(name, "/")
		if !more {
			return d, nil
		}
		next := d.Child(part)
		if next == nil {
			if next, err = make(d, part); err != nil {
				return nil, err
			}
		}
		if next.Kind != erofs.Dir {
			return nil, fmt.Errorf("%w: %q is no directory", ErrUnsuited, shorten(part))
		}
		d, name = next, rest
	}
}

// missing refuses to make a directory.
func missing(_ *erofs.Node, name string) (*erofs.Node, error) {
	return nil, fmt.Errorf("%w: there is no entry for directory %q", ErrUnsuited, shorten(name))
}

// marker deals with an entry that is about the layers below.
func (i *imager) marker(name string) (done bool, err error) {
	for part := range strings.SplitSeq(name[:strings.LastIndexByte(name, '/')+1], "/") {
		switch {
		case strings.HasPrefix(part, metaPrefix):
			return true, nil
		case strings.HasPrefix(part, whiteoutPrefix):
			return false, fmt.Errorf("%w: below a whiteout", ErrInvalid)
		}
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !ok:
		return false, nil
	case base != opaqueMarker && strings.HasPrefix(base, metaPrefix):
		return true, nil
	case base != opaqueMarker && (hidden == "" || hidden == "." || hidden == ".."):
		return false, fmt.Errorf("%w: whiteout of no name", ErrInvalid)
	}
	d, err := i.parent(name, missing)
	switch {
	case err != nil:
		return false, err
	case base != opaqueMarker:
		i.hidden[d] = append(i.hidden[d], hidden)
	case d == i.root: // an overlay has no opaque root
		return false, fmt.Errorf("%w: it hides all that is below it", ErrUnsuited)
	default:
		i.opaque[d] = true
	}
	return true, nil
}
