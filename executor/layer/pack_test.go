package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := WriteTar(context.Background(), dir, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A layer that is unpacked over its lowers and written again is the same tar,
// byte by byte, and unpacks to the same tree.
func TestRoundTrip(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		long := strings.Repeat("x", 120)
		base := archive(t, directory("gone", 0o755), file("deleted", ""), file("dir/old", ""), file("dir/sub/old", ""), directory("was", 0o755), file("was/f", ""))
		in := archive(t,
			directory("dir", 0o1777), file("dir/.wh..wh..opq", ""), file("dir/f", "data").owned(1000, 70000000),
			directory("dir/sub", 0o2750).xattr("user.k", "v\x00\n="),
			symlink("dir/l", strings.Repeat("t", 300)), file(".wh.gone", ""), file(".wh.deleted", ""),
			file("was", "now a file").mode(0o4711), link("was2", "was"), link("z", "was"),
			ent(tar.TypeFifo, "fifo", 0o600), device(tar.TypeChar, "dev", 10, 200), device(tar.TypeBlock, "blk", 4000, 1<<20-1),
			file("cap", "c").mode(0o755).xattr(capabilityAttr, capNetBind),
			file("bad\xff\x00"[:4], "b"), file("new\nline", "n"), file("ünï", "u"),
			file(long+"/"+long+"/"+long+"/f", "long"), symlink("sl", "nowhere"), link("sl2", "sl"),
			entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "early", Mode: 0o644, ModTime: time.Unix(-86400*365*20, 5), Format: tar.FormatPAX}},
			entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "late", Mode: 0o644, ModTime: time.Unix(1<<33, 0), Format: tar.FormatPAX}},
			file("empty", ""), directory("emptydir", 0o700),
		)
		dirs := stack(t, dir, base, in)
		one := tarDir(t, dirs[1])
		again := mkdir(t, dir, "again")
		if _, err := Unpack(context.Background(), bytes.NewReader(one), again, UnpackOptions{Lowers: dirs[:1]}); err != nil {
			t.Fatal(err)
		}
		equal(t, "unpacked again", show(t, again), show(t, dirs[1]))
		if two := tarDir(t, again); !bytes.Equal(one, two) {
			t.Errorf("written again: %d bytes, not the same %d; %q", len(two), len(one), names(t, two))
		}
		got := names(t, one)
		x := long + "/"
		want := []string{".wh.deleted", ".wh.gone", "bad\xff", "blk", "cap", "dev", "dir/", "dir/.wh..wh..opq", "dir/f", "dir/l", "dir/sub/",
			"early", "empty", "emptydir/", "fifo", "late", "new\nline", "sl", "sl2", "was", "was2", x, x + x, x + x + x, x + x + x + "f", "z", "ünï"}
		want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, ".wh.d") || strings.HasPrefix(s, ".wh.g") })
		want = slices.Insert(want, slices.Index(want, "dev"), ".wh.deleted")
		want = slices.Insert(want, slices.Index(want, "late"), ".wh.gone")
		if !slices.Equal(got, want) {
			t.Errorf("entries\n%q, want\n%q", got, want)
		}
	})
}

func TestWriteTarRefuses(t *testing.T) {
	needRoot(t)
	for name, make := range map[string]func(dir string) error{
		"begins with .wh.": func(d string) error { return os.WriteFile(d+"/.wh.x", nil, 0o644) },
		"directory .wh.":   func(d string) error { return os.Mkdir(d+"/.wh.x", 0o755) },
		"cannot hold":      func(d string) error { return setUser(d, "user.a=b", "c") },
		"nested more than": func(d string) error { return deep(d, "d", 1005) },
		"4096 bytes":       func(d string) error { return deep(d, strings.Repeat("n", 200), 25) },
	} {
		dir := t.TempDir()
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		_, err := WriteTar(context.Background(), dir, io.Discard)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), strings.TrimPrefix(name, "directory ")) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(err.Error()); n > 1000 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
		exec.Command("rm", "-rf", dir+"/d", dir+"/"+strings.Repeat("n", 200)).Run()
	}
}

// TestWriteTarBounds: what is too large for any reader is not even begun.
func TestWriteTarBounds(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(os.WriteFile(dir+"/f", nil, 0o644), os.Truncate(dir+"/f", 300<<30)); err != nil {
		t.Skip(err) // a file system without large files
	}
	if _, err := WriteTar(ctx, dir, io.Discard); !errors.Is(err, ErrLimit) {
		t.Errorf("a file of 300 GiB: %v", err)
	}
}

func setUser(dir, name, value string) error {
	if err := os.WriteFile(dir+"/f", nil, 0o644); err != nil {
		return err
	}
	return unix.Setxattr(dir+"/f", name, []byte(value), 0)
}

// deep makes n directories inside each other, deeper than a path can say.
func deep(dir, name string, n int) error {
	fd, err := unix.Open(dir, openDir, 0)
	for range n {
		if err != nil {
			return err
		}
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			return err
		}
		var sub int
		sub, err = unix.Openat(fd, name, openDir, 0)
		unix.Close(fd)
		fd = sub
	}
	unix.Close(fd)
	return err
}

func TestWriteTarLeavesOut(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		l, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		os.WriteFile(dir+"/f", []byte("f"), 0o644)
		for _, a := range []string{"trusted.overlay.origin", "trusted.other", "user.overlay.opaque", "user.keep"} {
			if err := unix.Setxattr(dir+"/f", a, []byte("v"), 0); err != nil {
				t.Fatal(a, err)
			}
		}
		r := tar.NewReader(bytes.NewReader(tarDir(t, dir)))
		h, err := r.Next()
		if err != nil || h.Name != "f" || h.Uname != "" || h.Gname != "" {
			t.Fatalf("%v %v", h, err)
		}
		for k := range h.PAXRecords {
			if k != "mtime" && k != paxXattr+"user.keep" {
				t.Errorf("record %s", k)
			}
		}
		if h.PAXRecords[paxXattr+"user.keep"] != "v" {
			t.Error("user.keep is lost")
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("the socket: %v", err)
		}
	})
}

// A file of more than 8 GiB does not fit into the old header's size. It is a
// hole here; only the first header and the length of the tar are looked at.
func TestWriteTarLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 9 GiB to nowhere")
	}
	dir := tmpfs(t)
	const size = 9 << 30
	if err := os.WriteFile(dir+"/big", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dir+"/big", size); err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := WriteTar(context.Background(), dir, pw)
		pw.CloseWithError(err)
		done <- err
	}()
	r := tar.NewReader(pr)
	h, err := r.Next()
	if err != nil || h.Size != size {
		t.Errorf("size %v, %v", h, err)
	}
	pr.Close()
	if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

func TestClampTo(t *testing.T) {
	dir := t.TempDir()
	clamp := time.Unix(1_500_000_000, 0)
	for name, at := range map[string]time.Time{"old": time.Unix(900_000_000, 7), "new": time.Now(), "same": clamp} {
		os.WriteFile(dir+"/"+name, nil, 0o644)
		os.Chtimes(dir+"/"+name, at, at)
	}
	var b bytes.Buffer
	if _, err := writeTar(context.Background(), dir, &b, PackOptions{ClampTo: &clamp}); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	for _, want := range []time.Time{clamp, time.Unix(900_000_000, 7), clamp} {
		if h, err := r.Next(); err != nil || !h.ModTime.Equal(want) {
			t.Errorf("%s: %v, want %v (%v)", h.Name, h.ModTime, want, err)
		}
	}
}

// What hides nothing of known lowers is left out; without lowers all is written.
func TestMarkersOfNothing(t *testing.T) {
	needRoot(t)
	dirs := stack(t, t.TempDir(), archive(t, file("a/b", ""), file("c", "")))
	up := t.TempDir()
	for _, d := range []string{"a", "new", "new/sub"} {
		os.Mkdir(up+"/"+d, 0o755)
	}
	for _, d := range []string{"new", "a"} {
		if err := unix.Setxattr(up+"/"+d, opaqueAttr, []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []string{"c", "never", "new/x"} {
		if err := unix.Mknod(up+"/"+w, unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		lowers []string
		want   []string
	}{
		{nil, []string{"a/", "a/.wh..wh..opq", ".wh.c", ".wh.never", "new/", "new/.wh..wh..opq", "new/sub/", "new/.wh.x"}},
		{dirs, []string{"a/", "a/.wh..wh..opq", ".wh.c", "new/", "new/sub/"}},
	} {
		var b bytes.Buffer
		if _, err := writeTar(context.Background(), up, &b, PackOptions{Lowers: tc.lowers}); err != nil {
			t.Fatal(err)
		}
		if got := names(t, b.Bytes()); !slices.Equal(got, tc.want) {
			t.Errorf("with %d lowers %q, want %q", len(tc.lowers), got, tc.want)
		}
	}
}

func TestPack(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for i := range 40 {
		os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), bytes.Repeat([]byte(fmt.Sprintf("line %d\n", i)), 20000), 0o644)
	}
	ctx := context.Background()
	want := tarDir(t, dir)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, tc := range []struct {
		opt   PackOptions
		media types.MediaType
		err   string
	}{
		{PackOptions{}, types.OCILayer, ""},
		{PackOptions{Media: Docker}, types.DockerLayer, ""},
		{PackOptions{Media: OCI, Compression: request.Compression{Algorithm: "gzip", Level: 9}}, types.OCILayer, ""},
		{PackOptions{Compression: request.Compression{Algorithm: "zstd"}}, types.OCILayerZStd, ""},
		{PackOptions{Compression: request.Compression{Algorithm: "zstd", Level: 19}}, types.OCILayerZStd, ""},
		{PackOptions{Media: Docker, Compression: request.Compression{Algorithm: "zstd"}}, "", "no Docker media type"},
		{PackOptions{Media: "aci"}, "", "not supported"},
		{PackOptions{Compression: request.Compression{Algorithm: "lz4"}}, "", "not supported"},
		{PackOptions{Compression: request.Compression{Level: 10}}, "", "not supported"},
	} {
		st, err := store.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		b, err := Pack(ctx, dir, st, tc.opt)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v", tc.opt, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.MediaType != tc.media || b.DiffID.Hex != hexSum(want) || b.TarSize != int64(len(want)) || b.Entries != 40 {
			t.Errorf("%+v: %+v", tc.opt, b)
		}
		for _, processors := range []int{1, 3, 16} { // the same again, and in any case what it says
			runtime.GOMAXPROCS(processors)
			if c, err := Pack(ctx, dir, st, tc.opt); err != nil || c != b {
				t.Errorf("again: %+v, %v", c, err)
			}
		}
		if got := unblob(t, st, b); !bytes.Equal(got, want) {
			t.Errorf("%+v: blob holds %d bytes, want %d", tc.opt, len(got), len(want))
		}
	}
}

func unblob(t *testing.T, st *store.Store, b Blob) []byte {
	t.Helper()
	f, size, err := st.Open(b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, _ := io.ReadAll(f)
	if hexSum(raw) != b.Digest.Hex || size != b.Size {
		t.Errorf("blob %s of %d bytes is not what %+v says", hexSum(raw), size, b)
	}
	var r io.Reader
	if b.MediaType == types.OCILayerZStd {
		r, err = zstd.NewReader(bytes.NewReader(raw))
	} else {
		if !bytes.Equal(raw[3:8], make([]byte, 5)) { // flags, time
			t.Errorf("gzip header % x", raw[:10])
		}
		r, err = gzip.NewReader(bytes.NewReader(raw))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPackFails(t *testing.T) {
	needRoot(t)
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := t.TempDir()
	os.WriteFile(dir+"/f", make([]byte, 9<<20), 0o644)
	if _, err := Pack(ctx, dir, st, PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	os.WriteFile(dir+"/.wh.f", nil, 0o644)
	if _, err := Pack(context.Background(), dir, st, PackOptions{}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
