package flat

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	whiteout = ".wh."
	opaqueWh = ".wh..wh..opq"
	// keepText is the size up to which content is kept, for messages.
	keepText = 2048
	xattrKey = "SCHILY.xattr."
)

// readLayer reads a whole tar: what it adds in order, which names it hides,
// and which directories it makes opaque.
func readLayer(r io.Reader) (entries []entry, hidden, opaque []string, err error) {
	tr := tar.NewReader(r)
	seen := map[string]bool{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, hidden, opaque, nil
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read layer: %w", err)
		}
		name := clean(h.Name)
		dir, base := path.Split(name)
		switch {
		case base == opaqueWh:
			opaque = append(opaque, dir)
			continue
		case strings.HasPrefix(base, whiteout):
			hidden = append(hidden, dir+strings.TrimPrefix(base, whiteout))
			continue
		}
		if seen[name] {
			return nil, nil, nil, fmt.Errorf("layer has %q twice", name)
		}
		seen[name] = true
		e, err := readEntry(h, tr)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		e.name = name
		entries = append(entries, e)
	}
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func readEntry(h *tar.Header, r io.Reader) (entry, error) {
	n := &node{
		typ: h.Typeflag, mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid, mtime: h.ModTime.Unix(),
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrKey); ok {
			if n.xattrs == nil {
				n.xattrs = map[string]string{}
			}
			n.xattrs[name] = hex.EncodeToString([]byte(v))
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return entry{node: n}, n.read(r)
	case tar.TypeDir:
		n.children = map[string]*node{}
	case tar.TypeSymlink:
		n.link = h.Linkname
	case tar.TypeLink:
		return entry{target: clean(h.Linkname), node: n}, nil
	case tar.TypeChar, tar.TypeBlock:
		n.major, n.minor = h.Devmajor, h.Devminor
	case tar.TypeFifo:
	default:
		return entry{}, fmt.Errorf("tar entry of type %q", h.Typeflag)
	}
	return entry{node: n}, nil
}

// read takes a file's content: size, digest and the first bytes.
func (n *node) read(r io.Reader) error {
	h := sha256.New()
	head := &strings.Builder{}
	size, err := io.Copy(h, io.TeeReader(r, &limited{head, keepText}))
	if err != nil {
		return err
	}
	n.size, n.sum = size, hex.EncodeToString(h.Sum(nil))
	if size <= keepText {
		n.text = head.String()
	}
	return nil
}

// limited passes on the first bytes and swallows the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	head := p[:min(len(p), l.left)]
	l.left -= len(head)
	if len(head) > 0 {
		if _, err := l.w.Write(head); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
