package erofs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sample is a tree with everything that an image can have.
func sample(t testing.TB, w *Writer) *Node {
	t.Helper()
	at := time.Unix(1700000000, 123456789)
	add := func(d *Node, name string, n *Node) *Node {
		t.Helper()
		if n.Mtime.IsZero() {
			n.Mtime = at
		}
		if err := d.Add(name, n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	file := func(text string) *Node {
		d, err := w.Write(strings.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		return &Node{Kind: Regular, Mode: 0o644, Data: d}
	}
	root := NewDir()
	root.Mtime, root.UID, root.Mode = at, 7, 0o1775
	hello := add(root, "hello", file("hello\n"))
	add(root, "again", hello)
	add(root, "empty", file(""))
	add(root, "large", file(strings.Repeat("0123456789abcdef", 100000)+"end"))
	add(root, "owned", file("x")).UID = 4294967294
	root.Child("owned").GID = 70000
	root.Child("owned").Mode = 0o6755
	add(root, "old", file("y")).Mtime = time.Unix(-5, 7)
	add(root, "link", &Node{Kind: Symlink, Mode: 0o777, Target: "hello"})
	add(root, "longlink", &Node{Kind: Symlink, Mode: 0o777, Target: strings.Repeat("a/", 1990)})
	add(root, "pipe", &Node{Kind: Fifo, Mode: 0o600})
	add(root, "socket", &Node{Kind: Socket, Mode: 0o600})
	add(root, "null", &Node{Kind: Char, Mode: 0o666, Major: 1, Minor: 3})
	add(root, "big", &Node{Kind: Block, Mode: 0o660, Major: 259, Minor: 70000})
	add(root, "gone", &Node{Kind: Char})
	capable := add(root, "capable", file("z"))
	capable.Xattrs = map[string]string{
		"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"user.overlay.opaque": "y", "user.empty": "", "trusted.large": strings.Repeat("v", 9000),
	}
	add(root, strings.Repeat("n", 255), file("long name"))
	add(root, "\xff\x01", file("no UTF-8"))
	many := add(root, "many", NewDir())
	for i := range 2000 {
		add(many, fmt.Sprintf("a file with the number %d", i), hello)
	}
	// Directories whose entries end around a block's end.
	for n := BlockSize - 200; n <= BlockSize; n += 4 {
		edge := add(root, fmt.Sprintf("edge%d", n), NewDir())
		left := n - 2*direntSize - len("...")
		for left > 300 {
			add(edge, strings.Repeat("e", 100)+fmt.Sprint(left), hello)
			left -= direntSize + 100 + len(fmt.Sprint(left))
		}
		add(edge, strings.Repeat("z", max(1, min(left-direntSize, 255))), hello)
	}
	deep := root
	for range 50 {
		deep = add(deep, "deep", NewDir())
	}
	return root
}

// image writes the sample into a file.
func image(t testing.TB, tree func(testing.TB, *Writer) *Node) string {
	t.Helper()
	var rest bytes.Buffer
	w := NewWriter(&rest)
	first, size, err := w.Close(tree(t, w))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(first)+rest.Len()) != size || size%BlockSize != 0 {
		t.Errorf("%d and %d bytes, not %d", len(first), rest.Len(), size)
	}
	file := filepath.Join(t.TempDir(), "image.erofs")
	if err := os.WriteFile(file, append(first, rest.Bytes()...), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFsck(t *testing.T) {
	for name, tree := range map[string]func(testing.TB, *Writer) *Node{
		"sample": sample, "empty": func(testing.TB, *Writer) *Node { return NewDir() },
	} {
		out, err := exec.Command("fsck.erofs", "-d9", "--extract", image(t, tree)).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("No errors found")) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// Linux shows what was written.
func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro", image(t, sample), dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no EROFS: %s", out)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	var w bytes.Buffer
	compare(t, dir, sample(t, NewWriter(&w)))
}

func compare(t *testing.T, path string, n *Node) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
		return
	}
	want := [...]any{uint32(n.Kind) | uint32(n.Mode), n.UID, n.GID, n.Mtime.Unix(), int64(n.Mtime.Nanosecond()), uint64(n.linkCount())}
	if got := [...]any{st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink}; got != want {
		t.Errorf("%.100q: %v, want %v", path, got, want)
	}
	for name, value := range n.Xattrs {
		b := make([]byte, 70000)
		if size, err := unix.Lgetxattr(path, name, b); err != nil || string(b[:max(size, 0)]) != value {
			t.Errorf("%.100q: attribute %s: %v", path, name, err)
		}
	}
	switch n.Kind {
	case Char, Block:
		if unix.Major(st.Rdev) != n.Major || unix.Minor(st.Rdev) != n.Minor {
			t.Errorf("%.100q: device %d:%d", path, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	case Symlink:
		if target, err := os.Readlink(path); err != nil || target != n.Target {
			t.Errorf("%.100q: %v, target %q", path, err, target)
		}
	case Regular:
		b, err := os.ReadFile(path)
		if err != nil || int64(len(b)) != n.Data.size {
			t.Errorf("%.100q: %v, %d bytes", path, err, len(b))
		}
		if strings.HasSuffix(path, "/large") && !strings.HasSuffix(string(b), "abcdefend") {
			t.Errorf("%.100q ends with %q", path, b[max(0, len(b)-10):])
		}
	case Dir:
		entries, err := os.ReadDir(path)
		if err != nil || len(entries) != len(n.children) {
			t.Errorf("%.100q: %v, %d entries instead of %d", path, err, len(entries), len(n.children))
		}
		for name, c := range n.children {
			compare(t, filepath.Join(path, name), c)
		}
	}
}
