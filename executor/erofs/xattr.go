package erofs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	ibodyHeader = 12
	entryHeader = 4
	// maxIbody is what the attributes of one file may take, in bytes. The format
	// has room for more, but ext4 and XFS agree on about as much.
	maxIbody = 64 << 10
)

// prefixes are the beginnings of names that have a number (EROFS_XATTR_INDEX_*).
// The two of POSIX ACLs are whole names.
var prefixes = []struct {
	name  string
	index byte
}{
	{"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"trusted.", 4}, {"security.", 6},
}

// xattrBytes are the attributes of a node as they stand behind its inode (struct
// erofs_xattr_ibody_header), or nothing.
func (n *Node) xattrBytes() ([]byte, error) {
	if len(n.Xattrs) == 0 {
		return nil, nil
	}
	b := make([]byte, ibodyHeader)
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		value := n.Xattrs[name]
		index, rest, err := splitName(name)
		if err != nil {
			return nil, err
		}
		if len(value) > maxXattrs {
			return nil, fmt.Errorf("%w: attribute %.100q of %d bytes", ErrInvalid, name, len(value))
		}
		b = append(b, byte(len(rest)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	if len(b) > maxIbody {
		return nil, fmt.Errorf("%w: attributes of %d bytes", ErrInvalid, len(b))
	}
	return b, nil
}

func splitName(name string) (index byte, rest string, err error) {
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(name, p.name)
		if ok && len(rest) <= 255 && (rest != "") == strings.HasSuffix(p.name, ".") && strings.IndexByte(rest, 0) < 0 {
			return p.index, rest, nil
		}
	}
	return 0, "", fmt.Errorf("%w: attribute %.100q", ErrInvalid, name)
}

// xattrCount is what an inode says of the size of its attributes.
func xattrCount(size int) uint16 {
	if size == 0 {
		return 0
	}
	return uint16((size-ibodyHeader)/entryHeader + 1)
}
