package erofs

import "encoding/binary"

const direntSize = 12

// entry is a name in a directory.
type entry struct {
	name string
	node *Node
}

func (e entry) size() int { return direntSize + len(e.name) }

// entries lists a directory with "." and "..", sorted by bytes.
func (n *Node) entries() []entry {
	list := make([]entry, 0, len(n.children)+2)
	own := []entry{{".", n}, {"..", n.parent}}
	for _, name := range n.Names() {
		for len(own) > 0 && own[0].name < name {
			list, own = append(list, own[0]), own[1:]
		}
		list = append(list, entry{name, n.children[name]})
	}
	return append(list, own...)
}

// dirents is one block of a directory: all entries, then all names.
func dirents(list []entry) []byte {
	b := make([]byte, 0, BlockSize)
	at := len(list) * direntSize
	for _, e := range list {
		b = binary.LittleEndian.AppendUint64(b, e.node.place.nid)
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, e.node.Kind.direntType(), 0)
		at += len(e.name)
	}
	for _, e := range list {
		b = append(b, e.name...)
	}
	return b
}

// direntType is a kind as a directory entry has it (EROFS_FT_*, which are
// Linux's FT_*).
func (k Kind) direntType() byte {
	switch k {
	case Regular:
		return 1
	case Dir:
		return 2
	case Char:
		return 3
	case Block:
		return 4
	case Fifo:
		return 5
	case Socket:
		return 6
	case Symlink:
		return 7
	}
	return 0
}

// directories writes the entries that are in whole blocks.
func (w *Writer) directories(l *layout) {
	for _, n := range l.nodes {
		if n.Kind != Dir {
			continue
		}
		list := n.place.blocks
		if n.place.inline > 0 {
			list = list[:len(list)-1]
		}
		for _, b := range list {
			w.put(dirents(b))
		}
	}
}
