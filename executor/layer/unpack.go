package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// UnpackOptions say where a layer belongs. The zero value is for the lowest
// layer of an image.
type UnpackOptions struct {
	// Lowers are the directories of all layers below this one, lowest first,
	// as Unpack made them. Entries that go through a symbolic link of a layer
	// below, or into a directory that only a layer below describes, need them.
	// What hides nothing of them is not marked as hidden.
	Lowers []string
	// Limits bound what the layer may expand to.
	Limits Limits
	// Nodes makes devices and whiteouts; nil: mknodat(2).
	Nodes Nodes
}

// Unpack reads a layer blob (tar, plain or compressed with gzip or zstd) and
// makes a lower directory of it in dir, which exists and is empty. It returns
// the digest of the uncompressed tar, trailing bytes included; the caller
// compares it with the image's config.
//
// What an entry may do: everything inside dir. Names lead through symbolic
// links as if dir, over the lowers, were the root. Refused (ErrInvalid) are
// names that lead above the root, links to files that are not there, a root
// that is not a directory, character devices 0:0, and whiteouts without a name;
// and (ErrLimit) what exceeds the limits. After an error dir holds a part of
// the layer and is of no use.
func Unpack(ctx context.Context, r io.Reader, dir string, opt UnpackOptions) (v1.Hash, error) {
	m := &meter{lim: opt.Limits.withDefaults()}
	in := &counted{r: r, m: m}
	d, f, err := Decompress(in)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("unpack layer: %w", err)
	}
	defer d.Close()
	if f == Bzip2 || f == Xz {
		return v1.Hash{}, fmt.Errorf("unpack layer: %w: compression %s is not supported", ErrInvalid, f)
	}
	sum := sha256.New()
	src := readAhead(ctx, decoded{d, in}, sum, m.read)
	defer src.Close()
	if err := unpackTar(ctx, src, dir, opt, m); err != nil {
		return v1.Hash{}, fmt.Errorf("unpack layer: %w", err)
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return v1.Hash{}, fmt.Errorf("unpack layer: after the last entry: %w", err)
	}
	return sumHash(sum), nil
}

func unpackTar(ctx context.Context, r *ahead, dir string, opt UnpackOptions, m *meter) error {
	fd, err := unix.Open(dir, openDir, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	a, err := newApplier(fd, m, opt.Nodes)
	if err != nil {
		return err
	}
	a.overlay = true
	a.root.below = reversed(opt.Lowers)
	a.opened = a.settle
	err = a.start(opt.Lowers)
	if err == nil {
		err = a.all(ctx, r)
	}
	if err == nil {
		err = a.finishHiding()
	}
	if cerr := a.close(); err == nil {
		err = cerr
	}
	return err
}

func newApplier(fd int, m *meter, nodes Nodes) (*applier, error) {
	t, err := newTree(fd, nodes)
	return &applier{tree: t, meter: m, buf: make([]byte, chunkSize)}, err
}

// start gives the root the attributes that it has below, for the case that the
// layer does not describe it, and learns which permissions the process's umask
// takes away.
func (a *applier) start(lowers []string) error {
	at := attributes{mode: 0o755}
	if len(lowers) > 0 {
		top := lowers[len(lowers)-1]
		var st unix.Stat_t
		if err := unix.Lstat(top, &st); err != nil {
			return fmt.Errorf("look at lower: %w", err)
		}
		at = attributes{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), mtime: mtime(&st)}
		if err := copyAttrs(a.root.fd, top, a.scratch); err != nil {
			return fmt.Errorf("copy attributes of lower: %w", err)
		}
	}
	const probe = "umask"
	if err := unix.Mkdirat(a.root.fd, probe, 0o777); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	var st unix.Stat_t
	err := unix.Fstatat(a.root.fd, probe, &st, unix.AT_SYMLINK_NOFOLLOW)
	if rerr := unix.Unlinkat(a.root.fd, probe, unix.AT_REMOVEDIR); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("learn the umask: %w", err)
	}
	a.umask = 0o777 &^ st.Mode
	return a.setOpen(a.root, at)
}

// counted counts the compressed bytes.
type counted struct {
	r   io.Reader
	m   *meter
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.packed.Add(int64(n))
	c.err = err
	return n, err
}

// decoded tells the errors of a decompressor from those of its input.
type decoded struct {
	io.Reader
	in *counted
}

func (d decoded) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err == nil || err == io.EOF || d.in.err != nil && d.in.err != io.EOF {
		return n, err
	}
	return n, fmt.Errorf("%w: %w", ErrInvalid, err)
}

func sumHash(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}
