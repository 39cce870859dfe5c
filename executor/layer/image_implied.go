package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/erofs"
)

// A layer need not describe the directories in which its files are. What such a
// directory is like the layers below say, which an image does not know. So it has one
// there with a list of all of them, and Lowers makes those as Unpack would.

// maxImplied bounds the list, in bytes.
const maxImplied = 1 << 20

// imply makes a directory that no entry describes.
func (i *imager) imply(d *erofs.Node, name string) (*erofs.Node, error) {
	if i.nodes++; i.nodes > maxNodes {
		return nil, fmt.Errorf("%w: more than %d files", ErrUnsuited, maxNodes)
	}
	n := erofs.NewDir()
	n.Mtime = time.Unix(0, 0)
	if err := d.Add(name, n); err != nil {
		return nil, err
	}
	i.implied[n] = true
	return n, nil
}

// impliedList is the list of the directories that no entry describes, each with a zero
// byte after it, a directory before those in it. The root is ".".
func (i *imager) impliedList() (list []byte, err error) {
	if !i.described {
		list = append(list, ".\x00"...)
	}
	if len(i.implied) == 0 {
		return list, nil
	}
	var walk func(at string, d *erofs.Node, hides bool) error
	walk = func(at string, d *erofs.Node, hides bool) error {
		hides = hides || i.opaque[d]
		if i.implied[d] {
			// What an order of entries means that is not known any more is left to Unpack.
			if hides {
				return fmt.Errorf("%w: there is no entry for directory %q, of which something is hidden", ErrUnsuited, shorten(at))
			}
			list = append(append(list, at...), 0)
		}
		if len(list) > maxImplied {
			return fmt.Errorf("%w: there are no entries for too many directories", ErrUnsuited)
		}
		for _, name := range d.Names() {
			if c := d.Child(name); c.Kind == erofs.Dir {
				if err := walk(join(at, name), c, hides); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return list, walk("", i.root, false)
}

// readImplied reads the list of the image that is mounted at dir; nil: there is none.
func readImplied(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, imageImplied))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImplied))
	if err != nil {
		return nil, err
	}
	list := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	for _, name := range list {
		if name == "" || name != "." && path.Clean("/" + name)[1:] != name {
			return nil, fmt.Errorf("%w: a directory called %q", ErrInvalid, shorten(name))
		}
	}
	return list, nil
}

// errStray is wrapped when a layer's name leads through something else than a directory
// of the layers below: the directory of an image would hide it.
var errStray = errors.New("a name leads through a symbolic link below")

// likeBelow makes, in the empty directory made, what goes over the files of the image at
// dir: the directories of list as they are below, and those on the way as the image has
// them.
func likeBelow(dir, made string, below, list []string) error {
	fd, err := unix.Open(made, openDir, 0)
	if err != nil {
		return err
	}
	a, err := newApplier(fd, &meter{lim: Limits{}.withDefaults()}, nil)
	if err != nil {
		return err
	}
	a.overlay = true
	a.root.below = reversed(below)
	err = a.start(below)
	o := overImage{a, filepath.Join(dir, imageFiles), map[string]bool{}, map[string]bool{}}
	if err == nil && list[0] != "." {
		err = o.root()
	}
	for n := 0; n < len(list) && err == nil; n++ {
		o.implied[list[n]] = true
		err = o.way(list[n])
	}
	if cerr := a.close(); err == nil {
		err = cerr
	}
	return err
}

// overImage makes directories that go over those of an image.
type overImage struct {
	*applier
	files   string // the image's
	seen    map[string]bool
	implied map[string]bool
}

func (o overImage) root() error {
	at, err := o.described("")
	if err != nil {
		return err
	}
	return o.setOpen(o.applier.root, at)
}

// way makes a directory and those that it lies in.
func (o overImage) way(p string) error {
	if p == "." {
		return nil
	}
	d := o.pin(o.applier.root)
	for name := range strings.SplitSeq(p, "/") {
		next, err := o.next(d, name)
		o.release(d)
		if err != nil {
			return fmt.Errorf("directory %q: %w", shorten(p), err)
		}
		d = next
	}
	o.release(d)
	return nil
}

func (o overImage) next(d *dir, name string) (*dir, error) {
	if at := join(d.path, name); !o.seen[at] {
		attr, err := o.described(at)
		if err == nil && !o.implied[at] {
			err = o.directory(d, name, attr)
		}
		if err != nil {
			return nil, err
		}
		o.seen[at] = true
	}
	next, link, err := o.step(d, name)
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, errStray
	case err == nil && link != "":
		o.release(next)
		return nil, errStray
	}
	return next, err
}

// described is what the image says of a directory. Those above it were seen before, so
// no link is on the way to it.
func (o overImage) described(name string) (attributes, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(o.files, name), &st); err != nil {
		return attributes{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return attributes{}, fmt.Errorf("%w: it is none", ErrUnsuited)
	}
	return attributes{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), mtime: mtime(&st)}, nil
}

// unpackImage unpacks what is in an image, as Unpack does a layer.
func unpackImage(ctx context.Context, dir, made string, list []string, opt UnpackOptions) error {
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		w.CloseWithError(layerOf(ctx, dir, list, w))
		close(ended)
	}()
	_, err := Unpack(ctx, r, made, opt)
	r.CloseWithError(errStray) // for who still writes
	<-ended
	return err
}

// layerOf writes the layer tar of which the image at dir was made, without entries for
// the directories of list.
func layerOf(ctx context.Context, dir string, list []string, w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, part := range []string{imageUnder, imageFiles, imageOver} {
		if err := addPart(ctx, tw, filepath.Join(dir, part), list); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return tw.Close()
}

// addPart adds a part of an image: a tar, if it is there, or a directory.
func addPart(ctx context.Context, tw *tar.Writer, file string, list []string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return errors.Join(err, addEntries(tw, f, nil))
	}
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		_, err := writeTar(ctx, file, w, PackOptions{Root: list[0] != "."})
		w.CloseWithError(err)
		close(ended)
	}()
	err = addEntries(tw, r, list)
	r.CloseWithError(err)
	<-ended
	return err
}

// addEntries adds the entries of a tar but those of the directories of list.
func addEntries(tw *tar.Writer, r io.Reader, list []string) error {
	left := map[string]bool{}
	for _, name := range list {
		left[name] = true
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir && left[path.Clean(h.Name)] {
			continue
		}
		h.Format = tar.FormatPAX
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
