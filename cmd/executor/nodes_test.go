package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNodes asks over the socket for every kind of node, as a process without
// the right to make them does.
func TestNodes(t *testing.T) {
	sock, child, err := nodeSockets()
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	go serveNodes(sock)
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m := &nodeMaker{sock: int(child.Fd())}
	if err := m.ask(int(d.Fd()), "null", unix.S_IFCHR|0o640, unix.Mkdev(1, 3)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "null"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("%o %d, %v", st.Mode, st.Rdev, err)
	}
	for _, c := range []struct {
		name string
		mode uint32
		want error
	}{
		{"null", unix.S_IFCHR, unix.EEXIST},
		{"../up", unix.S_IFCHR, nil},
		{"..", unix.S_IFBLK, nil},
		{"", unix.S_IFBLK, nil},
		{"file", unix.S_IFREG, nil},
		{"pipe", unix.S_IFIFO, nil},
	} {
		err := m.ask(int(d.Fd()), c.name, c.mode, 0)
		if err == nil || (c.want != nil && !errors.Is(err, c.want)) {
			t.Errorf("%q %o: %v, want %v", c.name, c.mode, err, c.want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "..", "up")); len(left) > 0 {
		t.Errorf("made %q", left)
	}
}
