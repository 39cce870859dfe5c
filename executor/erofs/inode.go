package erofs

import (
	"encoding/binary"
	"hash/crc32"
)

// How the data of an inode is kept (i_format).
const (
	extendedForm = 1
	flatPlain    = 0 << 1
	flatInline   = 2 << 1
)

// metadata writes the inodes with what is beside them.
func (w *Writer) metadata(l *layout) {
	buf := make([]byte, 0, cap(w.buf))
	base := uint64(0) // the slot at which buf begins
	for _, n := range l.nodes {
		if len(buf) > cap(buf)/2 {
			whole := len(buf) / BlockSize * BlockSize
			w.put(buf[:whole])
			base += uint64(whole) / slotSize
			buf = buf[:copy(buf, buf[whole:])]
		}
		buf = append(buf, make([]byte, (n.place.nid-base)*slotSize-uint64(len(buf)))...)
		buf = n.appendInode(buf)
	}
	w.put(buf)
}

// appendInode appends an inode in the extended form (struct
// erofs_inode_extended), its attributes and what is inline.
func (n *Node) appendInode(b []byte) []byte {
	xattrs, _ := n.xattrBytes() // checked when the node got its name
	format, size, where := uint16(extendedForm|flatPlain), n.Data.size, n.Data.block
	switch n.Kind {
	case Dir:
		size, where = n.place.size, n.place.block
	case Symlink:
		size, where = n.place.size, 0
	case Char, Block:
		size, where = 0, n.Minor&0xff|n.Major<<8|(n.Minor&^0xff)<<12
	case Fifo, Socket:
		size, where = 0, 0
	}
	if n.place.inline > 0 {
		format = extendedForm | flatInline
	}
	le := binary.LittleEndian
	b = le.AppendUint16(b, format)
	b = le.AppendUint16(b, xattrCount(len(xattrs)))
	b = le.AppendUint16(b, uint16(n.Kind)|n.Mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(size))
	b = le.AppendUint32(b, where)
	b = le.AppendUint32(b, n.place.number)
	b = le.AppendUint32(b, n.UID)
	b = le.AppendUint32(b, n.GID)
	b = le.AppendUint64(b, uint64(n.Mtime.Unix()))
	b = le.AppendUint32(b, uint32(n.Mtime.Nanosecond()))
	b = le.AppendUint32(b, n.linkCount())
	b = append(b, make([]byte, 16)...)
	b = append(b, xattrs...)
	if n.place.inline == 0 {
		return b
	}
	if n.Kind == Dir {
		return append(b, dirents(n.place.blocks[len(n.place.blocks)-1])...)
	}
	return append(b, n.Target...)
}

// linkCount is st_nlink: a directory has a link from each directory in it.
func (n *Node) linkCount() uint32 {
	if n.Kind != Dir {
		return n.links
	}
	count := uint32(2)
	for _, c := range n.children {
		if c.Kind == Dir {
			count++
		}
	}
	return count
}

const (
	superOffset = 1024
	superMagic  = 0xe0f5e1e2
	// superChecked says that the superblock has a checksum, superTimes that
	// inodes have times of modification.
	superChecked = 1
	superTimes   = 2
)

// superblock is block 0 of an image that ends before block end (struct
// erofs_super_block).
func (l *layout) superblock(end uint64) []byte {
	first := make([]byte, BlockSize)
	sb, le := first[superOffset:], binary.LittleEndian
	le.PutUint32(sb[0:], superMagic)
	le.PutUint32(sb[8:], superChecked|superTimes)
	sb[12] = blockBits
	le.PutUint16(sb[14:], 0) // the root's inode is the first
	le.PutUint64(sb[16:], uint64(len(l.nodes)))
	le.PutUint32(sb[36:], uint32(end))
	le.PutUint32(sb[40:], uint32(l.meta))
	sum := crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli))
	le.PutUint32(sb[4:], ^sum)
	return first
}
