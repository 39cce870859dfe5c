package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/erofs"
)

// FuzzImage makes a tree of whatever comes and lets gVisor read the image.
func FuzzImage(f *testing.F) {
	f.Add([]byte("\x02\x03abc\x05hello\x00\x02\x01d\x01\x04file\x00\x10"))
	f.Add(bytes.Repeat([]byte("\x01\x40a name of some length that is repeated"), 120))
	f.Fuzz(func(t *testing.T, script []byte) {
		var rest bytes.Buffer
		w := NewWriter(&rest)
		root := grow(t, w, script)
		first, _, err := w.Close(root)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, append(first, rest.Bytes()...), 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		img, err := erofs.OpenImage(src)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		read(t, img, img.RootNid(), root)
	})
}

// grow makes a tree of a script: what cannot be in one is refused by Add.
func grow(t *testing.T, w *Writer, script []byte) *Node {
	root := NewDir()
	dirs, files := []*Node{root}, []*Node{{Kind: Fifo}}
	for len(script) > 2 {
		what, size := script[0], int(script[1])
		script = script[2:]
		size = min(size, len(script))
		name := string(script[:size])
		script = script[size:]
		at := dirs[int(what>>3)%len(dirs)]
		n := &Node{Kind: Regular, Mode: uint16(what), UID: uint32(size), Mtime: time.Unix(int64(what)<<32, int64(size))}
		switch what % 8 {
		case 0, 1:
			n = NewDir()
		case 2:
			n.Kind, n.Target = Symlink, name+name
		case 3:
			n = files[int(what>>3)%len(files)]
		case 4:
			n.Kind = Char
		default:
			data := bytes.Repeat([]byte(name), int(what))
			var err error
			if n.Data, err = w.Write(bytes.NewReader(data), int64(len(data))); err != nil {
				t.Fatal(err)
			}
		}
		if at.Child(name) != nil || at.Add(name, n) != nil {
			continue
		}
		if n.Kind == Dir {
			dirs = append(dirs, n)
		} else {
			files = append(files, n)
		}
	}
	return root
}

// read compares what gVisor finds with a node.
func read(t *testing.T, img *erofs.Image, nid uint64, n *Node) {
	t.Helper()
	i, err := img.Inode(nid)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(i.Mode(), i.UID(), i.GID(), int64(i.Mtime()), i.MtimeNsec(), i.Nlink())
	if want := fmt.Sprint(uint16(n.Kind)|n.Mode, n.UID, n.GID, n.Mtime.Unix(), n.Mtime.Nanosecond(), n.linkCount()); got != want {
		t.Errorf("inode %d: %s instead of %s", nid, got, want)
	}
	switch n.Kind {
	case Symlink:
		if target, err := i.Readlink(); err != nil || target != n.Target {
			t.Errorf("link to %q, %v", target, err)
		}
	case Regular:
		if ranges, err := i.DataRanges(); err != nil || int64(len(ranges[0].Bytes)) != n.Data.size || ranges[0].Off%BlockSize != 0 {
			t.Errorf("data of %d bytes instead of %d, %v", len(ranges[0].Bytes), n.Data.size, err)
		}
	case Dir:
		var names []string
		err := i.IterDirents(func(name string, kind uint8, nid uint64) error {
			names = append(names, name)
			c := n.Child(name)
			if name == "." || name == ".." {
				c = n
			}
			if c == nil || kind != c.Kind.direntType() {
				t.Errorf("entry %q of type %d", name, kind)
			}
			if found, err := i.Lookup(name); err != nil || found != nid {
				t.Errorf("%q: %d instead of %d, %v", name, found, nid, err)
			}
			if name != "." && name != ".." && c != nil {
				read(t, img, nid, c)
			}
			return nil
		})
		if want := append(n.Names(), ".", ".."); err != nil || len(names) != len(want) || !slices.IsSorted(names) {
			t.Errorf("%q, %v", names, err)
		}
	}
}

// The root is the first inode, and no inode crosses into the data.
func TestSuperblock(t *testing.T) {
	file := image(t, sample)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := binary.LittleEndian.Uint32(b[superOffset+36:]); int(blocks)*BlockSize != len(b) {
		t.Errorf("%d blocks in %d bytes", blocks, len(b))
	}
	again, err := os.ReadFile(image(t, sample))
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the same tree made other bytes: %v", err)
	}
}
