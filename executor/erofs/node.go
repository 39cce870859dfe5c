package erofs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of the format.
const (
	maxName     = 255
	maxTarget   = 4095    // of a symbolic link; Linux stops there
	maxDirBytes = 1 << 31 // of one directory's entries
	maxXattrs   = 0xffff  // value of one attribute, in bytes
)

// ErrInvalid is wrapped when a tree cannot be an EROFS image.
var ErrInvalid = errors.New("cannot be in an EROFS image")

// Kind is the type of a file, as in st_mode.
type Kind uint16

// The types of files.
const (
	Fifo    Kind = 0o010000
	Char    Kind = 0o020000
	Dir     Kind = 0o040000
	Block   Kind = 0o060000
	Regular Kind = 0o100000
	Symlink Kind = 0o120000
	Socket  Kind = 0o140000
)

// Node is one file. A node with several names is a file with hard links; a
// directory has one name.
type Node struct {
	Kind     Kind
	Mode     uint16 // permissions with set-id and sticky bits
	UID, GID uint32
	Mtime    time.Time
	// Device is the number of a device: major and minor as makedev(3) takes them.
	Major, Minor uint32
	Target       string            // of a symbolic link
	Xattrs       map[string]string // by full name, such as security.capability
	Data         Data              // of a regular file: what Writer.Write returned

	children map[string]*Node
	links    uint32
	parent   *Node // of a directory
	place    place
}

// Data is where the contents of a file are in an image.
type Data struct {
	block uint32
	size  int64
}

// Size is the length of the file in bytes.
func (d Data) Size() int64 { return d.size }

// NewDir returns an empty directory.
func NewDir() *Node { return &Node{Kind: Dir, Mode: 0o755, children: map[string]*Node{}} }

// Child returns the file with a name, or nil.
func (n *Node) Child(name string) *Node { return n.children[name] }

// Names returns the names in a directory, sorted.
func (n *Node) Names() []string {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Add gives a file a name in a directory, in the place of what has the name.
// It fails if the name or the file cannot be in an image.
func (n *Node) Add(name string, child *Node) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := child.check(); err != nil {
		return err
	}
	if child.Kind == Dir {
		if child.parent != nil {
			return fmt.Errorf("%w: a directory with two names", ErrInvalid)
		}
		child.parent = n
	}
	n.Remove(name)
	n.children[name] = child
	child.links++
	return nil
}

// Remove takes a name out of a directory, if it is there.
func (n *Node) Remove(name string) {
	child := n.children[name]
	if child == nil {
		return
	}
	child.links--
	child.parent = nil
	delete(n.children, name)
}

func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return fmt.Errorf("%w: the name %q", ErrInvalid, name)
	case len(name) > maxName:
		return fmt.Errorf("%w: a name of %d bytes", ErrInvalid, len(name))
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%w: a name with a slash or a zero byte", ErrInvalid)
	}
	return nil
}

func (n *Node) check() error {
	switch n.Kind {
	case Dir:
		if n.children == nil {
			return fmt.Errorf("%w: a directory that NewDir has not made", ErrInvalid)
		}
	case Symlink:
		if n.Target == "" || len(n.Target) > maxTarget || strings.IndexByte(n.Target, 0) >= 0 {
			return fmt.Errorf("%w: a link target of %d bytes", ErrInvalid, len(n.Target))
		}
	case Char, Block:
		if n.Major >= 1<<12 || n.Minor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d", ErrInvalid, n.Major, n.Minor)
		}
	case Regular, Fifo, Socket:
	default:
		return fmt.Errorf("%w: a file of type %o", ErrInvalid, n.Kind)
	}
	if n.Mode > 0o7777 {
		return fmt.Errorf("%w: permissions %o", ErrInvalid, n.Mode)
	}
	_, err := n.xattrBytes()
	return err
}
