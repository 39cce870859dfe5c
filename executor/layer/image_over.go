package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/erofs"
)

// over collects, as a layer tar, the files that gVisor cannot read from an image:
// devices, and what has extended attributes.
type over struct {
	spool func() (*os.File, error)
	file  *os.File // nil: there are none
	tw    *tar.Writer
	names map[*erofs.Node]string // the first of each such file
}

func newOver(spool func() (*os.File, error)) over {
	return over{spool: spool, names: map[*erofs.Node]string{}}
}

func (o *over) has(n *erofs.Node) bool { _, ok := o.names[n]; return ok }

func (o *over) close() {
	if o.file != nil {
		o.file.Close()
	}
}

// put adds a file with its contents.
func (o *over) put(n *erofs.Node, h *tar.Header, r io.Reader) (err error) {
	if o.file == nil {
		if o.file, err = o.spool(); err != nil {
			return err
		}
		o.tw = tar.NewWriter(o.file)
	}
	o.names[n] = h.Name
	if err := o.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	if r == nil {
		return nil
	}
	if _, err := io.CopyN(o.tw, r, h.Size); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// name adds a further name of a file.
func (o *over) name(n *erofs.Node, name string) error {
	first, ok := o.names[n]
	if !ok || path.Clean(first) == name {
		return nil
	}
	h := &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX}
	if err := o.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	o.names[erofs.NewDir()] = name // its directories are needed too
	return nil
}

// finish writes the directories on the way to all these files as they are in the
// image, and puts the tar into it. It returns no data where there is none.
func (o *over) finish(i *imager) (erofs.Data, bool, error) {
	if o.file == nil {
		return erofs.Data{}, false, nil
	}
	names := make([]string, 0, len(o.names))
	for _, name := range o.names {
		names = append(names, path.Clean(name))
	}
	slices.Sort(names)
	if err := i.ways(o.tw, names, o.has); err != nil {
		return erofs.Data{}, false, err
	}
	if err := o.tw.Close(); err != nil {
		return erofs.Data{}, false, fmt.Errorf("set aside: %w", err)
	}
	size, err := o.file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = o.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return erofs.Data{}, false, fmt.Errorf("set aside: %w", err)
	}
	data, err := i.w.Write(o.file, size)
	return data, true, err
}
