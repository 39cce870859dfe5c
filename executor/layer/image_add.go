package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/erofs"
)

// add gives a name in the directory d to the file that an entry describes.
func (i *imager) add(d *erofs.Node, name string, h *tar.Header, at attributes, r io.Reader) error {
	base := lastOf(name)
	old := d.Child(lastOf(name))
	if old != nil && (old.Kind == erofs.Dir) != (h.Typeflag == tar.TypeDir) {
		return fmt.Errorf("%w: a directory and something else have one name", ErrUnsuited)
	}
	if old != nil && i.over.has(old) {
		return fmt.Errorf("%w: a special file has its name twice", ErrUnsuited)
	}
	n, err := i.node(old, name, h, at, r)
	if err != nil || n == old {
		return err
	}
	if err := d.Add(base, n); err != nil {
		return err
	}
	return i.over.name(n, name)
}

// lastOf is the last part of a clean name.
func lastOf(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// node makes the file of an entry; old has its name already, or is nil.
func (i *imager) node(old *erofs.Node, name string, h *tar.Header, at attributes, r io.Reader) (*erofs.Node, error) {
	n := &erofs.Node{Mode: uint16(at.mode), UID: uint32(at.uid), GID: uint32(at.gid), Mtime: time.Unix(at.mtime.Unix())}
	switch h.Typeflag {
	case tar.TypeDir:
		if n = old; n == nil {
			n = erofs.NewDir()
		}
		return n, i.setDir(n, name, at)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.Kind = erofs.Regular
		return n, i.contents(n, name, h, at, r)
	case tar.TypeSymlink:
		n.Kind, n.Target, n.Mode = erofs.Symlink, h.Linkname, 0o777
		if h.Linkname == "" || len(h.Linkname) >= 4096 || strings.IndexByte(h.Linkname, 0) >= 0 {
			return nil, fmt.Errorf("%w: link target of %d bytes", ErrInvalid, len(h.Linkname))
		}
		return n, nil
	case tar.TypeLink:
		return i.linked(h.Linkname)
	case tar.TypeFifo:
		n.Kind = erofs.Fifo
		return n, nil
	case tar.TypeChar, tar.TypeBlock:
		return n, i.device(n, name, h, at)
	}
	return nil, fmt.Errorf("%w: entry of type %q is not supported", ErrInvalid, string(h.Typeflag))
}

// setDir gives a directory the attributes of its entry, or of a further one.
func (i *imager) setDir(n *erofs.Node, name string, at attributes) error {
	n.Mode, n.UID, n.GID, n.Mtime = uint16(at.mode), uint32(at.uid), uint32(at.gid), time.Unix(at.mtime.Unix())
	switch {
	case i.implied[n]:
		return fmt.Errorf("%w: a directory is described after what is in it", ErrUnsuited)
	case i.over.has(n):
		return fmt.Errorf("%w: a directory with attributes is described twice", ErrUnsuited)
	case len(at.xattrs) == 0:
		return nil
	case name == "":
		return fmt.Errorf("%w: the root has extended attributes", ErrUnsuited)
	}
	return i.over.put(n, header(name+"/", tar.TypeDir, at), nil)
}

// contents writes a regular file into the image, or, with extended attributes,
// into the layer above it.
func (i *imager) contents(n *erofs.Node, name string, h *tar.Header, at attributes, r io.Reader) (err error) {
	if len(at.xattrs) > 0 {
		special := header(name, tar.TypeReg, at)
		special.Size = h.Size
		err = i.over.put(n, special, r)
	} else {
		n.Data, err = i.w.Write(r, h.Size)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

func (i *imager) device(n *erofs.Node, name string, h *tar.Header, at attributes) error {
	if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
		return fmt.Errorf("%w: device %d:%d is out of range", ErrInvalid, h.Devmajor, h.Devminor)
	}
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return fmt.Errorf("%w: character device 0:0 cannot be in an image", ErrInvalid)
	}
	special := header(name, h.Typeflag, at)
	special.Devmajor, special.Devminor = h.Devmajor, h.Devminor
	n.Kind = erofs.Regular // something to be hidden
	return i.over.put(n, special, nil)
}

// linked finds the file of a hard link.
func (i *imager) linked(target string) (*erofs.Node, error) {
	rules := &applier{tree: &tree{overlay: true}, meter: i.meter}
	name, err := rules.clean(target)
	if err != nil {
		return nil, fmt.Errorf("link target %q: %w", shorten(target), err)
	}
	d, err := i.parent(name, missing)
	if err != nil {
		return nil, err
	}
	switch n := d.Child(lastOf(name)); {
	case n == nil:
		return nil, fmt.Errorf("%w: a link to %q, which it does not have", ErrUnsuited, shorten(target))
	case n.Kind == erofs.Dir:
		return nil, fmt.Errorf("link to %q: %w: is a directory", shorten(target), ErrInvalid)
	default:
		return n, nil
	}
}

// header is an entry of a layer tar of our own.
func header(name string, kind byte, at attributes) *tar.Header {
	h := &tar.Header{
		Typeflag: kind, Name: name, Mode: int64(at.mode), Uid: at.uid, Gid: at.gid, ModTime: time.Unix(at.mtime.Unix()), Format: tar.FormatPAX,
	}
	for key, value := range at.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+key] = value
	}
	return h
}
