package flat

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Dir reads a directory of the host as a tree, hard links and extended
// attributes included.
func Dir(dir string) (*Tree, error) {
	t := New()
	inodes := map[[2]uint64]*node{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		id := [2]uint64{uint64(st.Dev), st.Ino}
		n := inodes[id]
		if n == nil {
			if n, err = fromDisk(name, st); err != nil {
				return err
			}
			inodes[id] = n
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		parent := t.root
		if p := filepath.Dir(rel); p != "." {
			for part := range strings.SplitSeq(p, "/") {
				parent = parent.children[part]
			}
		}
		parent.children[filepath.Base(rel)] = n
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return t, nil
}

func fromDisk(name string, st *syscall.Stat_t) (*node, error) {
	n := &node{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), mtime: st.Mtim.Sec}
	var err error
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		n.typ, n.children = tar.TypeDir, map[string]*node{}
	case syscall.S_IFLNK:
		n.typ = tar.TypeSymlink
		n.link, err = os.Readlink(name)
	case syscall.S_IFCHR, syscall.S_IFBLK:
		n.typ = tar.TypeChar
		if st.Mode&syscall.S_IFMT == syscall.S_IFBLK {
			n.typ = tar.TypeBlock
		}
		n.major, n.minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case syscall.S_IFIFO:
		n.typ = tar.TypeFifo
	case syscall.S_IFREG:
		n.typ = tar.TypeReg
		var f *os.File
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
		err = n.read(f)
	default:
		err = fmt.Errorf("%s: file of mode %o", name, st.Mode)
	}
	if err != nil {
		return nil, err
	}
	n.xattrs, err = xattrs(name)
	return n, err
}

func xattrs(name string) (map[string]string, error) {
	buf := make([]byte, 1<<16)
	size, err := unix.Llistxattr(name, buf)
	if err != nil || size == 0 {
		return nil, err
	}
	out := map[string]string{}
	for key := range strings.SplitSeq(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(name, key, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, key, err)
		}
		out[key] = hex.EncodeToString(value[:n])
	}
	return out, nil
}

// List tells the entries of one layer in their order, as "type mode uid:gid
// path", whiteouts included.
func List(l v1.Layer, line func(string)) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		typ := types[h.Typeflag]
		if h.Typeflag == tar.TypeLink {
			typ = "hardlink"
		}
		line(fmt.Sprintf("%s %04o %d:%d %q", typ, h.Mode&0o7777, h.Uid, h.Gid, h.Name))
	}
}
