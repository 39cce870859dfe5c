package flat

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Entry describes one path of a tree, in the form of want.json.
type Entry struct {
	Path       string            `json:"path"`
	Type       string            `json:"type"`
	Mode       string            `json:"mode,omitempty"` // four octal digits; not for links
	UID        int               `json:"uid"`
	GID        int               `json:"gid"`
	Size       int64             `json:"size,omitempty"` // of files, bytes
	SHA256     string            `json:"sha256,omitempty"`
	Text       string            `json:"text,omitempty"` // for the reader, implied by SHA256
	Link       string            `json:"link,omitempty"`
	Dev        string            `json:"dev,omitempty"` // major:minor
	Xattrs     map[string]string `json:"xattrs,omitempty"`
	MTime      int64             `json:"mtime,omitempty"` // seconds, where pinned
	HardlinkTo string            `json:"hardlink_to,omitempty"`
}

// Same says whether two entries agree in everything that is compared.
func (e Entry) Same(o Entry) bool {
	e.Text, o.Text = "", ""
	x, y := e.Xattrs, o.Xattrs
	e.Xattrs, o.Xattrs = nil, nil
	if e.Type == "hardlink" { // its attributes are those of the file it names
		e.UID, e.GID, o.UID, o.GID = 0, 0, 0, 0
	}
	a, _ := json.Marshal(e)
	b, _ := json.Marshal(o)
	return string(a) == string(b) && maps.Equal(x, y)
}

// String is one line for messages.
func (e Entry) String() string {
	s := fmt.Sprintf("%s %s", e.Path, e.Type)
	if e.Type != "hardlink" {
		s += fmt.Sprintf(" %s %d:%d", e.Mode, e.UID, e.GID)
	}
	if e.Type == "file" {
		s += fmt.Sprintf(" size=%d sha256=%.12s", e.Size, e.SHA256)
	}
	for _, f := range []struct{ name, value string }{
		{"link", e.Link}, {"dev", e.Dev}, {"of", e.HardlinkTo},
	} {
		if f.value != "" {
			s += fmt.Sprintf(" %s=%q", f.name, f.value)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		s += fmt.Sprintf(" %s=%s", k, e.Xattrs[k])
	}
	if e.MTime != 0 {
		s += fmt.Sprintf(" mtime=%d", e.MTime)
	}
	if e.Text != "" {
		s += fmt.Sprintf(" %q", e.Text)
	}
	return s
}

// Options say what of a tree is described.
type Options struct {
	// LooseHardlinks describes every name of a file in full.
	LooseHardlinks bool
	// PinMTime names the paths whose modification time is described; all if
	// AllMTimes is set.
	PinMTime  []string
	AllMTimes bool
}

// Entries describes every path but the root, by path.
func (t *Tree) Entries(o Options) map[string]Entry {
	out := map[string]Entry{}
	first := map[*node]string{}
	if !o.LooseHardlinks {
		firstNames("/", t.root, first)
	}
	t.root.describe("/", out, first, o)
	return out
}

// firstNames finds the first name in byte order of whole paths of every file.
func firstNames(name string, n *node, first map[*node]string) {
	for base, c := range n.children {
		p := path.Join(name, base)
		if c.children != nil {
			firstNames(p, c, first)
			continue
		}
		if old, ok := first[c]; !ok || p < old {
			first[c] = p
		}
	}
}

var types = map[byte]string{
	tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink",
	tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
}

func (n *node) describe(name string, out map[string]Entry, first map[*node]string, o Options) {
	for base, c := range n.children {
		p := path.Join(name, base)
		if f, ok := first[c]; ok && f != p {
			out[p] = Entry{Path: p, Type: "hardlink", HardlinkTo: f}
			continue
		}
		e := Entry{
			Path: p, Type: types[c.typ], UID: c.uid, GID: c.gid, Size: c.size,
			SHA256: c.sum, Text: c.text, Link: c.link, Xattrs: c.xattrs,
		}
		if c.typ != tar.TypeSymlink {
			e.Mode = fmt.Sprintf("%04o", c.mode)
		}
		if c.typ == tar.TypeChar || c.typ == tar.TypeBlock {
			e.Dev = fmt.Sprintf("%d:%d", c.major, c.minor)
		}
		if o.AllMTimes || slices.Contains(o.PinMTime, p) {
			e.MTime = c.mtime
		}
		out[p] = e
		if c.children != nil {
			c.describe(p, out, first, o)
		}
	}
}

// Diff compares two described trees: the entries of img that are not the same
// in base, and the paths of base that are gone, without those below a
// directory that is gone too or became something else. Both are sorted.
func Diff(base, img map[string]Entry) (changed []Entry, removed []string) {
	for _, p := range slices.Sorted(maps.Keys(img)) {
		if old, ok := base[p]; !ok || !old.Same(img[p]) {
			changed = append(changed, img[p])
		}
	}
	for _, p := range slices.Sorted(maps.Keys(base)) {
		if _, ok := img[p]; ok {
			continue
		}
		if parent := path.Dir(p); parent == "/" || img[parent].Type == "dir" {
			removed = append(removed, p)
		}
	}
	return changed, removed
}

// Compare lists in words how two sorted lists of entries differ.
func Compare(want, got []Entry) []string {
	var out []string
	w, g := byPath(want), byPath(got)
	names := maps.Clone(w)
	maps.Copy(names, g)
	for _, p := range slices.Sorted(maps.Keys(names)) {
		we, inWant := w[p]
		ge, inGot := g[p]
		switch {
		case !inGot:
			out = append(out, "tree: missing "+we.String())
		case !inWant:
			out = append(out, "tree: not wanted "+ge.String())
		case !we.Same(ge):
			out = append(out, "tree: want "+we.String()+"\n      got  "+strings.TrimSpace(ge.String()))
		}
	}
	return out
}

func byPath(entries []Entry) map[string]Entry {
	m := map[string]Entry{}
	for _, e := range entries {
		m[e.Path] = e
	}
	return m
}
