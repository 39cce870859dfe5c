package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// kind is the type of an object, numbered as in a pack.
type kind uint8

const (
	commitKind kind = 1
	treeKind   kind = 2
	blobKind   kind = 3
	tagKind    kind = 4
	ofsDelta   kind = 6
	refDelta   kind = 7
)

func (k kind) String() string {
	switch k {
	case commitKind:
		return "commit"
	case treeKind:
		return "tree"
	case blobKind:
		return "blob"
	case tagKind:
		return "tag"
	}
	return "kind " + strconv.Itoa(int(k))
}

// commit is what is of interest in a commit.
type commit struct {
	tree id
	time time.Time // of its committer
}

// readCommit reads the commit i.
func (p *pack) readCommit(i id) (c commit, err error) {
	data, err := p.read(i, commitKind)
	if err != nil {
		return c, err
	}
	head, _, _ := bytes.Cut(data, []byte("\n\n"))
	for line := range strings.SplitSeq(string(head), "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "tree":
			c.tree, err = p.format.parse(value)
		case "committer":
			c.time, err = signedAt(value)
		}
		if err != nil {
			return c, fmt.Errorf("commit %s: %w", p.format.hex(i), err)
		}
	}
	if c.tree == (id{}) || c.time.IsZero() {
		return c, fmt.Errorf("commit %s has no tree or no committer", p.format.hex(i))
	}
	return c, nil
}

// signedAt reads the time at the end of "name <address> seconds zone".
func signedAt(s string) (time.Time, error) {
	fields := strings.Fields(s[strings.LastIndexByte(s, '>')+1:])
	if len(fields) == 0 {
		return time.Time{}, errors.New("a signature has no time")
	}
	sec, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || sec < 0 || sec > 1<<40 {
		return time.Time{}, fmt.Errorf("time %q", fields[0])
	}
	return time.Unix(sec, 0), nil
}

// readTag returns what the annotated tag i stands for.
func (p *pack) readTag(i id) (id, error) {
	data, err := p.read(i, tagKind)
	if err != nil {
		return id{}, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	object, ok := strings.CutPrefix(line, "object ")
	if !ok {
		return id{}, fmt.Errorf("tag %s names no object", p.format.hex(i))
	}
	return p.format.parse(object)
}

// maxTags is how many tags may stand for one another.
const maxTags = 16

// peel returns the commit that i is or, as a tag, stands for.
func (p *pack) peel(i id) (id, error) {
	for range maxTags {
		at, ok := p.find(i)
		if !ok {
			return i, fmt.Errorf("the server did not send %s", p.format.hex(i))
		}
		switch k := p.objects[at].kind; k {
		case commitKind:
			return i, nil
		case tagKind:
			var err error
			if i, err = p.readTag(i); err != nil {
				return i, err
			}
		default:
			return i, fmt.Errorf("%s is a %s, not a commit", p.format.hex(i), k)
		}
	}
	return i, errors.New("too many tags of tags")
}

// entry is a name in a tree.
type entry struct {
	name string
	mode uint32 // as git has it: 0o100644, 0o100755, 0o120000, 0o40000, 0o160000
	id   id
}

const (
	modeType = 0o170000
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeRepo = 0o160000 // a submodule: the id is a commit of it
)

// readTree reads the tree i.
func (p *pack) readTree(i id) ([]entry, error) {
	data, err := p.read(i, treeKind)
	if err != nil {
		return nil, err
	}
	var list []entry
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		mode, name, named := strings.Cut(string(head), " ")
		n, err := strconv.ParseUint(mode, 8, 32)
		if !ok || !named || err != nil || len(rest) < p.format.size {
			return nil, fmt.Errorf("malformed tree %s", p.format.hex(i))
		}
		e := entry{name: name, mode: uint32(n)}
		copy(e.id[:], rest[:p.format.size])
		data = rest[p.format.size:]
		list = append(list, e)
	}
	return list, nil
}

// maxInMemory bounds commits, tags, trees and links, which are read whole.
const maxInMemory = 64 << 20

// read returns the whole of an object of a kind.
func (p *pack) read(i id, k kind) ([]byte, error) {
	at, ok := p.find(i)
	if !ok {
		return nil, fmt.Errorf("the server did not send %s %s", k, p.format.hex(i))
	}
	o := p.objects[at]
	if o.kind != k {
		return nil, fmt.Errorf("%s is a %s, not a %s", p.format.hex(i), o.kind, k)
	}
	if o.size > maxInMemory {
		return nil, fmt.Errorf("%s %s has %d bytes", k, p.format.hex(i), o.size)
	}
	r, err := p.open(at)
	if err != nil {
		return nil, err
	}
	data := make([]byte, o.size)
	_, err = io.ReadFull(r, data)
	return data, err
}
