package git

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/pjbgf/sha1cd"
)

// id is an object's hash; one of SHA-1 fills the first 20 bytes only.
type id [32]byte

// format is how a repository names its objects.
type format struct {
	name string // as servers call it
	size int    // of a hash, in bytes
	new  func() hash.Hash
}

// formatOf returns the format that a server names; empty: SHA-1.
func formatOf(name string) (format, error) {
	switch name {
	case "", "sha1":
		// Sees the known ways of making two files of one hash.
		return format{name: "sha1", size: sha1cd.Size, new: sha1cd.New}, nil
	case "sha256":
		return format{name: name, size: sha256.Size, new: sha256.New}, nil
	}
	return format{}, fmt.Errorf("object format %q is not supported", name)
}

func (f format) hex(i id) string { return hex.EncodeToString(i[:f.size]) }

func (f format) parse(s string) (i id, err error) {
	if len(s) != 2*f.size {
		return i, fmt.Errorf("%q is no %s hash", s, f.name)
	}
	if _, err := hex.Decode(i[:], []byte(s)); err != nil {
		return i, fmt.Errorf("%q is no %s hash", s, f.name)
	}
	return i, nil
}

func (f format) sum(h hash.Hash) (i id) {
	h.Sum(i[:0])
	return i
}

// isCommitHash says whether a ref is a whole hash, as BuildKit sees it.
func isCommitHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && isHex(s, "0123456789abcdef")
}

func isHex(s, digits string) bool {
	return s != "" && strings.Trim(s, digits) == ""
}
