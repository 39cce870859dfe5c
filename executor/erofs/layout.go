package erofs

import (
	"fmt"
	"math"
)

const (
	inodeSize = 64 // of the extended form
	slotBits  = 5  // an inode begins at a multiple of 32 bytes
	slotSize  = 1 << slotBits
)

// place is where a node's inode and what belongs to it are.
type place struct {
	nid    uint64 // the inode's number: its offset in the metadata, in slots
	number uint32 // what stat shows as st_ino in 32 bits
	block  uint32 // of the entries of a directory that are in whole blocks
	size   int64  // of a directory's entries, or of a link's target
	inline int    // bytes beside the inode
	// blocks are a directory's entries; the last ones may be inline.
	blocks [][]entry
}

// layout is where everything goes.
type layout struct {
	nodes []*Node // in the order of their inodes
	first uint64  // block of the first directory
	meta  uint64  // block of the metadata
	slots uint64  // of all metadata
}

// layOut gives every node its place. Directories come from block first on, then
// the metadata, with the root's inode first: the superblock has 16 bits for its
// number.
func layOut(root *Node, first uint64) (*layout, error) {
	l := &layout{first: first}
	if err := l.collect(root); err != nil {
		return nil, err
	}
	at := first
	for _, n := range l.nodes {
		if n.Kind != Dir {
			continue
		}
		full := len(n.place.blocks)
		if n.place.inline > 0 {
			full--
		}
		n.place.block = uint32(at)
		at += uint64(full)
	}
	l.meta = at
	for i, n := range l.nodes {
		xattrs, err := n.xattrBytes()
		if err != nil {
			return nil, err
		}
		l.allot(n, inodeSize+len(xattrs))
		n.place.number = uint32(i + 1)
	}
	if l.meta+l.slots>>(blockBits-slotBits)+1 > math.MaxUint32 {
		return nil, fmt.Errorf("%w: more than 16 TiB", ErrInvalid)
	}
	return l, nil
}

// allot takes the next slots for an inode of size bytes and what is inline with
// it: that must end in the block in which it begins.
func (l *layout) allot(n *Node, size int) {
	const inBlock = BlockSize / slotSize
	if n.place.inline > 0 {
		start := (int(l.slots%inBlock)*slotSize + size) % BlockSize
		if start+n.place.inline > BlockSize {
			l.slots = (l.slots + inBlock - 1) / inBlock * inBlock
		}
	}
	n.place.nid = l.slots
	l.slots += uint64(size+n.place.inline+slotSize-1) / slotSize
}

// collect lists root and all below it, each node once, directories before what
// is in them and names in order, and measures what needs room.
func (l *layout) collect(root *Node) error {
	seen := map[*Node]bool{}
	queue := []*Node{root}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		l.nodes = append(l.nodes, d)
		if err := d.measureDir(); err != nil {
			return err
		}
		for _, name := range d.Names() {
			c := d.children[name]
			switch {
			case c.Kind == Dir:
				queue = append(queue, c)
				continue
			case c.links > 1 && seen[c]:
				continue
			case c.links > 1:
				seen[c] = true
			}
			c.place = place{}
			if c.Kind == Symlink {
				if err := c.measureLink(); err != nil {
					return err
				}
			}
			l.nodes = append(l.nodes, c)
		}
	}
	if uint64(len(l.nodes)) >= math.MaxUint32 {
		return fmt.Errorf("%w: %d files", ErrInvalid, len(l.nodes))
	}
	return nil
}

// fitsInline tells whether so many bytes can stand beside a node's inode.
func (n *Node) fitsInline(size int) (bool, error) {
	xattrs, err := n.xattrBytes()
	return size > 0 && inodeSize+len(xattrs)+size <= BlockSize, err
}

func (n *Node) measureLink() error {
	ok, err := n.fitsInline(len(n.Target))
	if err == nil && !ok {
		err = fmt.Errorf("%w: a link target of %d bytes beside attributes", ErrInvalid, len(n.Target))
	}
	n.place.inline, n.place.size = len(n.Target), int64(len(n.Target))
	return err
}

// measureDir cuts a directory's entries into blocks.
func (n *Node) measureDir() error {
	n.place = place{}
	var cur []entry
	used := 0
	for _, e := range n.entries() {
		if used+e.size() > BlockSize {
			n.place.blocks = append(n.place.blocks, cur)
			cur, used = nil, 0
		}
		cur = append(cur, e)
		used += e.size()
	}
	full := len(n.place.blocks)
	n.place.blocks = append(n.place.blocks, cur) // "." and ".." are always there
	n.place.size = int64(full)<<blockBits + int64(used)
	if n.place.size > maxDirBytes {
		return fmt.Errorf("%w: a directory with entries of %d bytes", ErrInvalid, n.place.size)
	}
	ok, err := n.fitsInline(used)
	if ok && used < BlockSize {
		n.place.inline = used
	}
	return err
}
