package flat

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"strings"
)

// node is one inode. Names that are hard links of each other share it.
type node struct {
	typ      byte // a tar.Type
	mode     uint32
	uid, gid int
	size     int64
	sum      string
	text     string
	link     string
	major    int64
	minor    int64
	xattrs   map[string]string
	mtime    int64
	children map[string]*node // directories only
}

func newDir() *node {
	return &node{typ: tar.TypeDir, mode: 0o755, children: map[string]*node{}}
}

// Tree is a flattened filesystem.
type Tree struct {
	root *node
}

// New returns an empty tree.
func New() *Tree { return &Tree{root: newDir()} }

// entry is one member of a layer, content reduced to its digest.
type entry struct {
	name   string // cleaned, without leading slash
	target string // hard links: the other name, cleaned
	node   *node
}

// Apply puts one layer, an uncompressed tar, on top of the tree.
func (t *Tree) Apply(layer io.Reader) error {
	entries, hidden, opaque, err := readLayer(layer)
	if err != nil {
		return err
	}
	for _, name := range opaque {
		if n := t.walk(name); n != nil && n.children != nil {
			n.children = map[string]*node{}
		}
	}
	for _, name := range hidden {
		if dir := t.walk(path.Dir(name)); dir != nil && dir.children != nil {
			delete(dir.children, path.Base(name))
		}
	}
	for _, e := range entries {
		if err := t.add(e); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) add(e entry) error {
	if e.name == "." || e.name == "" {
		return nil // the root directory itself is not compared
	}
	n := e.node
	if e.target != "" {
		n = t.lookup(e.target)
		if n == nil || n.children != nil {
			return fmt.Errorf("%s: hard link to %s, which is not there", e.name, e.target)
		}
	}
	dir, err := t.parent(path.Dir(e.name))
	if err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	base := path.Base(e.name)
	if old := dir.children[base]; old != nil && old.children != nil && n.children != nil {
		n.children = old.children
	}
	dir.children[base] = n
	return nil
}

// lookup finds a name without following a link in its last component.
func (t *Tree) lookup(name string) *node {
	dir := t.walk(path.Dir(name))
	if dir == nil || dir.children == nil {
		return nil
	}
	return dir.children[path.Base(name)]
}

// walk follows every link; nil: not there.
func (t *Tree) walk(name string) *node {
	n, err := t.resolve(name, false)
	if err != nil {
		return nil
	}
	return n
}

// parent finds a directory, following links, and makes what is missing.
func (t *Tree) parent(name string) (*node, error) { return t.resolve(name, true) }

// maxLinks is how many symbolic links one name may go through, as in Linux.
const maxLinks = 40

func (t *Tree) resolve(name string, create bool) (*node, error) {
	var stack []*node // below the root, for ".."
	cur, links := t.root, 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) > 0 {
				cur = stack[len(stack)-1]
				stack = stack[:len(stack)-1]
			}
			continue
		}
		next := cur.children[part]
		if next != nil && next.typ == tar.TypeSymlink {
			if links++; links > maxLinks {
				return nil, fmt.Errorf("too many links in %q", name)
			}
			if strings.HasPrefix(next.link, "/") {
				cur, stack = t.root, nil
			}
			rest = append(strings.Split(next.link, "/"), rest...)
			continue
		}
		if next == nil || next.children == nil {
			if !create {
				return nil, fmt.Errorf("%q is not there", name)
			}
			next = newDir()
			cur.children[part] = next
		}
		stack = append(stack, cur)
		cur = next
	}
	return cur, nil
}
