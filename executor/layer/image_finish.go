package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/erofs"
)

// finish completes the image and returns its first block.
func (i *imager) finish() ([]byte, error) {
	if err := i.hide(); err != nil {
		return nil, err
	}
	top := erofs.NewDir()
	top.Mtime = time.Unix(0, 0)
	add := func(name string, d erofs.Data) error {
		return top.Add(name, &erofs.Node{Kind: erofs.Regular, Mode: 0o444, Mtime: top.Mtime, Data: d})
	}
	write := func(name string, b []byte, err error) error {
		if err != nil || len(b) == 0 {
			return err
		}
		d, err := i.w.Write(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		return add(name, d)
	}
	b, err := i.under()
	if err := write(imageUnder, b, err); err != nil {
		return nil, err
	}
	b, err = i.impliedList()
	if err := write(imageImplied, b, err); err != nil {
		return nil, err
	}
	d, ok, err := i.over.finish(i)
	if err == nil && ok {
		err = add(imageOver, d)
	}
	if err == nil {
		err = top.Add(imageFiles, i.root)
	}
	if err != nil {
		return nil, err
	}
	first, _, err := i.w.Close(top)
	return first, err
}

// hide makes the signs of what the layer deletes. What it has itself stays, and a
// directory of its own then hides what others have in it.
func (i *imager) hide() error {
	for d, names := range i.hidden {
		for _, name := range names {
			switch own := d.Child(name); {
			case own == nil:
				if i.nodes++; i.nodes > maxNodes {
					return fmt.Errorf("%w: more than %d files", ErrUnsuited, maxNodes)
				}
				if err := d.Add(name, &erofs.Node{Kind: erofs.Char, Mtime: time.Unix(0, 0)}); err != nil {
					return fmt.Errorf("%w: %w", ErrUnsuited, err)
				}
			case own.Kind == erofs.Dir:
				i.opaque[own] = true
			}
		}
	}
	return nil
}

// under is the layer tar with the opaque directories, or nothing.
func (i *imager) under() ([]byte, error) {
	if len(i.opaque) == 0 {
		return nil, nil
	}
	names := i.opaqueNames("", i.root)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for n, name := range names {
		names[n] = name + "/" + opaqueMarker
	}
	if err := i.ways(tw, names, func(*erofs.Node) bool { return false }); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX}); err != nil {
			return nil, fmt.Errorf("opaque directories: %w", err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, fmt.Errorf("opaque directories: %w", err)
	}
	return b.Bytes(), nil
}

// opaqueNames lists the opaque directories below d, sorted.
func (i *imager) opaqueNames(name string, d *erofs.Node) (list []string) {
	if i.opaque[d] {
		list = append(list, name)
	}
	for _, base := range d.Names() {
		if c := d.Child(base); c.Kind == erofs.Dir {
			list = append(list, i.opaqueNames(join(name, base), c)...)
		}
	}
	return list
}

// ways writes the directories in which names lie, each as it is in the image, but
// those that were written before and those without an entry.
func (i *imager) ways(tw *tar.Writer, names []string, written func(*erofs.Node) bool) error {
	dirs := map[string]*erofs.Node{}
	for _, name := range names {
		d, way := i.root, ""
		for {
			part, rest, more := strings.Cut(name, "/")
			if !more {
				break
			}
			d, way, name = d.Child(part), join(way, part), rest
			if !written(d) && !i.implied[d] {
				dirs[way] = d
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		d := dirs[name]
		h := &tar.Header{
			Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(d.Mode), Uid: int(d.UID), Gid: int(d.GID), ModTime: d.Mtime, Format: tar.FormatPAX,
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("directories: %w", err)
		}
	}
	return nil
}
