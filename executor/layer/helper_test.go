package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips tests that make devices and trusted attributes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes devices and trusted.* attributes")
	}
}

// places are directories on the file systems that layers are unpacked to.
func places(t *testing.T, run func(t *testing.T, dir string)) {
	needRoot(t)
	t.Run("disk", func(t *testing.T) { run(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) { run(t, tmpfs(t)) })
}

// tmpfs returns a fresh directory in memory, where the machine has such.
func tmpfs(t testing.TB) string {
	for _, shm := range []string{"/dev/shm", "/w"} {
		dir, err := os.MkdirTemp(shm, "layer-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// file, directory and so on are entries of archives, with the values that most
// tests want. A plain time says that the entry came from an archive.
var plain = time.Unix(1_500_000_000, 123_456_789)

type entry struct {
	tar.Header
	data string
}

func ent(kind byte, name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: mode, ModTime: plain, Format: tar.FormatPAX}}
}

func file(name, data string) entry {
	e := ent(tar.TypeReg, name, 0o644)
	e.Size, e.data = int64(len(data)), data
	return e
}

func directory(name string, mode int64) entry { return ent(tar.TypeDir, name, mode) }

func symlink(name, target string) entry {
	e := ent(tar.TypeSymlink, name, 0o777)
	e.Linkname = target
	return e
}

func link(name, target string) entry {
	e := ent(tar.TypeLink, name, 0o644)
	e.Linkname = target
	return e
}

func device(kind byte, name string, major, minor int64) entry {
	e := ent(kind, name, 0o600)
	e.Devmajor, e.Devminor = major, minor
	return e
}

func (e entry) owned(uid, gid int) entry { e.Uid, e.Gid = uid, gid; return e }

func (e entry) mode(m int64) entry { e.Mode = m; return e }

func (e entry) xattr(name, value string) entry {
	e.PAXRecords = map[string]string{paxXattr + name: value}
	return e
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("%q: %v", e.Name, err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// show describes every file below dir on a line: path, type and mode, owner,
// contents. Times are shown where they differ from plain.
func show(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	first := map[inode]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line, err := showFile(p, rel, first)
		if rel != "." {
			out = append(out, line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func showFile(p, rel string, first map[inode]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	s := fmt.Sprintf("%q", rel)
	s = s[1 : len(s)-1]
	key := inode{uint64(st.Dev), st.Ino}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if old, ok := first[key]; ok && !isDir && !isWhiteout(&st) {
		return s + " = " + old, nil
	}
	first[key] = s
	kinds := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "link",
		unix.S_IFIFO: "fifo", unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFSOCK: "socket",
	}
	if isWhiteout(&st) {
		return s + " whiteout", nil
	}
	s += fmt.Sprintf(" %s %04o", kinds[st.Mode&unix.S_IFMT], st.Mode&0o7777)
	if st.Uid != 0 || st.Gid != 0 {
		s += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
	}
	detail, err := showDetail(p, &st)
	if m := time.Unix(mtime(&st).Sec, mtime(&st).Nsec); !m.Equal(plain) {
		detail += " @" + m.UTC().Format(time.RFC3339Nano)
		if time.Since(m) < time.Hour {
			detail = detail[:strings.LastIndex(detail, "@")] + "@now"
		}
	}
	return s + detail, err
}

func showDetail(p string, st *unix.Stat_t) (string, error) {
	var s string
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		if len(b) > 40 {
			sum := sha256.Sum256(b)
			return fmt.Sprintf(" %d:%s", len(b), hex.EncodeToString(sum[:4])), nil
		}
		s = fmt.Sprintf(" %q", b)
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		return " -> " + target, err
	case unix.S_IFCHR, unix.S_IFBLK:
		return fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	case unix.S_IFDIR:
	default:
		return "", nil
	}
	names := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, names)
	if err != nil {
		return "", err
	}
	list := strings.Split(strings.Trim(string(names[:n]), "\x00"), "\x00")
	slices.Sort(list)
	for _, name := range list {
		if name == "" || strings.HasPrefix(name, "security.selinux") {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return "", err
		}
		if name == opaqueAttr {
			name = "OPAQUE"
		}
		s += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return s, nil
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if slices.Equal(got, want) {
		return
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: unexpected %s", what, g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: missing    %s", what, w)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: got %d lines, want %d", what, len(got), len(want))
	}
}

// mkdir makes a fresh directory below dir.
func mkdir(t testing.TB, dir, name string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// stack unpacks archives on top of each other and returns their directories,
// lowest first.
func stack(t testing.TB, dir string, layers ...[]byte) []string {
	t.Helper()
	var lowers []string
	for i, l := range layers {
		d := mkdir(t, dir, fmt.Sprintf("l%d", i))
		if _, err := Unpack(context.Background(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers}); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		lowers = append(lowers, d)
	}
	return lowers
}

// names lists an archive's entries in order.
func names(t testing.TB, b []byte) []string {
	t.Helper()
	var out []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err != nil {
			return out
		}
		out = append(out, h.Name)
	}
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
