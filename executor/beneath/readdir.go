package beneath

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is a name in a directory.
type Entry struct {
	Name string
	Type uint32 // S_IFREG and so on
}

// ReadDir lists the open directory dir, sorted; rel is its path, for messages.
// Most file systems tell the types in the listing, which saves a stat a file.
func ReadDir(dir int, rel string) ([]Entry, error) { return List(dir, rel, nil) }

// List is ReadDir that asks pay for every name before it keeps it; nil: all are kept.
func List(dir int, rel string, pay func(name string) error) ([]Entry, error) {
	var list []Entry
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := Retry(func() (err error) { n, err = unix.Getdents(dir, buf); return err })
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: "/" + rel, Err: err}
		}
		if n == 0 {
			break
		}
		if list, err = parseDirents(list, buf[:n], dir, pay); err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: "/" + rel, Err: err}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// parseDirents reads what getdents64(2) gave: inode, offset (8 bytes each),
// length of the record (2), type (1), name with a closing zero.
func parseDirents(list []Entry, b []byte, dir int, pay func(string) error) ([]Entry, error) {
	const head = 19
	for len(b) > head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= head || size > len(b) {
			return nil, errors.New("malformed directory entry")
		}
		name, _, _ := strings.Cut(string(b[head:size]), "\x00")
		typ := uint32(b[18]) << 12 // the DT_ types are those of S_IFMT
		b = b[size:]
		if name == "." || name == ".." || name == "" {
			continue
		}
		if typ == 0 {
			var st unix.Stat_t
			if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			typ = st.Mode & unix.S_IFMT
		}
		if pay != nil {
			if err := pay(name); err != nil {
				return nil, err
			}
		}
		list = append(list, Entry{Name: name, Type: typ})
	}
	return list, nil
}
