package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestExtract(t *testing.T) {
	needRoot(t)
	owner := &[2]uint32{1000, 2000}
	for name, tc := range map[string]struct {
		before []entry
		dest   string
		in     []entry
		opt    ExtractOptions
		want   []string
		err    string
	}{
		"own owners and modes": {nil, "/", []entry{directory("d", 0o750).owned(1000, 2000), file("d/f", "1").mode(0o4755), link("d/h", "d/f"), symlink("d/l", "f")}, ExtractOptions{},
			[]string{"d dir 0750 1000:2000", `d/f file 4755 "1"`, "d/h = d/f", "d/l link 0777 -> f"}, ""},
		"chown": {nil, "/a/b", []entry{directory("d", 0o750).owned(5, 5), file("d/f", "1").mode(0o4755), symlink("d/l", "f"), file("i/f", "")}, ExtractOptions{Owner: owner},
			[]string{"a dir 0755 1000:2000 @now", "a/b dir 0755 1000:2000 @now", "a/b/d dir 0750 1000:2000", `a/b/d/f file 4755 1000:2000 "1"`, "a/b/d/l link 0777 1000:2000 -> f", "a/b/i dir 0755 @now", `a/b/i/f file 0644 1000:2000 ""`}, ""},
		"over what is there": {[]entry{directory("out", 0o755), directory("out/sub", 0o700), file("out/sub/old", "o"), symlink("out/lnk", "sub"), file("out/etc/group", "old"), directory("out/etc", 0o755)}, "out/",
			[]entry{file("etc/group", "mine"), file("lnk/inside", "i"), file("sub/newfile", "n")}, ExtractOptions{},
			[]string{"out dir 0755", "out/etc dir 0755", `out/etc/group file 0644 "mine"`, "out/lnk link 0777 -> sub", "out/sub dir 0700", `out/sub/inside file 0644 "i"`, `out/sub/newfile file 0644 "n"`, `out/sub/old file 0644 "o"`}, ""},
		"through a link in the root": {[]entry{directory("usr/lib", 0o755), directory("usr", 0o755), symlink("lib", "usr/lib")}, "/", []entry{file("lib/z", "z")}, ExtractOptions{},
			[]string{"usr dir 0755", "usr/lib dir 0755", "lib link 0777 -> usr/lib", `usr/lib/z file 0644 "z"`}, ""},
		"through an absolute link": {[]entry{directory("run", 0o755), directory("var", 0o755), symlink("var/run", "/run")}, "/",
			[]entry{directory("var/run/act", 0o755), file("var/run/act/HEAD", "h"), link("var/run/act/HEAD.link", "var/run/act/HEAD")}, ExtractOptions{},
			[]string{"run dir 0755", "run/act dir 0755", `run/act/HEAD file 0644 "h"`, "run/act/HEAD.link = run/act/HEAD", "var dir 0755", "var/run link 0777 -> /run"}, ""},
		"dest is an absolute link": {[]entry{directory("real", 0o755), symlink("dest", "/real")}, "/dest", []entry{file("f", "1")}, ExtractOptions{},
			[]string{"real dir 0755", "dest link 0777 -> /real", `real/f file 0644 "1"`}, ""},
		"dest is a link out": {[]entry{symlink("dest", "../../../new/deep")}, "dest", []entry{file("f", "1")}, ExtractOptions{},
			[]string{"dest link 0777 -> ../../../new/deep", "new dir 0755 @now", "new/deep dir 0755 @now", `new/deep/f file 0644 "1"`}, ""},
		"dest is a file":        {[]entry{file("f", "1")}, "/f", []entry{file("x", "")}, ExtractOptions{}, []string{`f file 0644 "1"`}, "not a directory"},
		"dest is the root":      {nil, "/d", []entry{directory("./", 0o700).owned(3, 3), file("../../x", "1"), symlink("up", ".."), file("up/y", "2")}, ExtractOptions{}, []string{"d dir 0755 @now", `d/x file 0644 "1"`, "d/up link 0777 -> ..", `d/y file 0644 "2"`}, ""},
		"file over directory":   {[]entry{file("d/sub/f", "1"), file("d/g", "2")}, "/", []entry{file("d", "3")}, ExtractOptions{}, []string{`d file 0644 "3"`}, ""},
		"directory over file":   {[]entry{file("d", "1")}, "/", []entry{directory("d", 0o711)}, ExtractOptions{}, []string{"d dir 0711"}, ""},
		"directory over link":   {[]entry{directory("e", 0o755), symlink("d", "e")}, "/", []entry{directory("d", 0o711), file("d/f", "")}, ExtractOptions{}, []string{"d dir 0711", `d/f file 0644 ""`, "e dir 0755"}, ""},
		"file over a link":      {[]entry{file("e", "e"), symlink("d", "e")}, "/", []entry{file("d", "d")}, ExtractOptions{}, []string{`d file 0644 "d"`, `e file 0644 "e"`}, ""},
		"names of whiteouts":    {nil, "/", []entry{file(".wh.x", "1"), file("d/.wh..wh..opq", "")}, ExtractOptions{}, []string{`.wh.x file 0644 "1"`, "d dir 0755 @now", `d/.wh..wh..opq file 0644 ""`}, ""},
		"attributes":            {nil, "/", []entry{file("f", "").xattr("user.a", "b"), directory("d", 0o755).xattr("user.a", "c"), file("g", "").xattr("user.overlay.opaque", "y")}, ExtractOptions{}, []string{`f file 0644 "" user.a="b"`, `d dir 0755 user.a="c"`, `g file 0644 ""`}, ""},
		"global header":         {nil, "/", []entry{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}}}, file("f", "")}, ExtractOptions{}, []string{`f file 0644 ""`}, ""},
		"devices":               {nil, "/", []entry{device(tar.TypeChar, "null", 1, 3), ent(tar.TypeFifo, "p", 0o666)}, ExtractOptions{Owner: owner}, []string{"null char 0600 1000:2000 1:3", "p fifo 0666 1000:2000"}, ""},
		"more than is allowed":  {nil, "/", []entry{file("a", ""), file("b", "")}, ExtractOptions{Limits: Limits{Entries: 1}}, []string{`a file 0644 ""`}, "more than 1 entries"},
		"link to outside dest":  {[]entry{file("secret", "s")}, "/d", []entry{link("h", "../secret"), link("h", "/secret")}, ExtractOptions{}, []string{`secret file 0644 "s"`, "d dir 0755 @now"}, "no such file"},
		"symlink to outside ok": {[]entry{file("secret", "s")}, "/d", []entry{symlink("l", "../secret"), link("h", "l")}, ExtractOptions{}, []string{`secret file 0644 "s"`, "d dir 0755 @now", "d/h link 0777 -> ../secret", "d/l = d/h"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			root := stack(t, top, archive(t, tc.before...))[0]
			err := Extract(context.Background(), bytes.NewReader(archive(t, tc.in...)), root, tc.dest, tc.opt)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			equal(t, "root", show(t, root), tc.want)
		})
	}
}

func TestExtractCompressed(t *testing.T) {
	needRoot(t)
	in := archive(t, file("f", strings.Repeat("data ", 100000)))
	for name, tc := range map[string]struct {
		format Format
		data   []byte
	}{
		"tar": {Tar, in}, "gzip": {Gzip, gzipped(in)}, "zstd": {Zstd, zstded(in)},
		"bzip2": {Bzip2, filter(t, in, "bzip2")}, "xz": {Xz, filter(t, in, "xz")},
		"xz of many blocks": {Xz, filter(t, in, "xz", "--block-size=10000", "--check=sha256")},
		"two xz streams":    {Xz, twoStreams(filter(t, in[:1000], "xz"), filter(t, in[1000:], "xz", "--check=none"))},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.data == nil {
				t.Skip("no such program here")
			}
			if f := Sniff(tc.data[:min(512, len(tc.data))]); f != tc.format {
				t.Errorf("looks like %s", f)
			}
			if !IsArchive(bytes.NewReader(tc.data)) {
				t.Error("is no archive")
			}
			dir := t.TempDir()
			if err := Extract(context.Background(), bytes.NewReader(tc.data), dir, "/", ExtractOptions{}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(dir + "/f"); len(b) != 500000 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if err := Extract(context.Background(), bytes.NewReader(tc.data[:len(tc.data)/2]), t.TempDir(), "/", ExtractOptions{}); err == nil {
				t.Error("half of it gives no error")
			}
		})
	}
}

func twoStreams(a, b []byte) []byte {
	if a == nil || b == nil {
		return nil
	}
	return append(append(a, 0, 0, 0, 0), b...)
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zstded(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

// filter runs a program of the machine over b; nil: there is none.
func filter(t testing.TB, b []byte, name string, args ...string) []byte {
	if _, err := exec.LookPath(name); err != nil {
		return nil
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func TestIsArchive(t *testing.T) {
	in := archive(t, file("f", "1"))
	old := bytes.Clone(in[:1024]) // without the ustar magic, as in Version 7
	for i := range 8 {
		old[257+i] = 0
	}
	for name, tc := range map[string]struct {
		in   []byte
		want bool
	}{
		"tar": {in, true}, "only a header": {raw('0', "f", octal(1), nil), true}, "old tar, bad sum": {old, false},
		"text":  {[]byte(strings.Repeat("this is no archive\n", 100)), false},
		"empty": {nil, false}, "zeros": {make([]byte, 4096), false}, "empty tar": {archive(t), false},
		"gzip of text": {gzipped([]byte("text")), false}, "gzip of a cut header": {gzipped(in[:300]), false},
		"gzip cut": {gzipped(in)[:90], false}, "gzip twice": {gzipped(gzipped(in)), false},
		"gzip magic only": {[]byte{0x1f, 0x8b, 8}, false}, "bzip2 magic only": {[]byte("BZh9"), false},
		"xz magic only": {[]byte("\xfd7zXZ\x00"), false}, "zstd magic only": {[]byte("\x28\xb5\x2f\xfd"), false},
	} {
		if got := IsArchive(bytes.NewReader(tc.in)); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An xz block may ask for a dictionary of 4 GiB; it does not get it.
func TestXzDictionary(t *testing.T) {
	in := archive(t, file("f", "1"))
	for dict, want := range map[string]bool{"64MiB": true, "128MiB": true, "192MiB": false, "1536MiB": false} {
		x := filter(t, in, "xz", "--lzma2=preset=0,dict="+dict)
		if x == nil {
			t.Skip("no xz here")
		}
		if got := IsArchive(bytes.NewReader(x)); got != want {
			t.Errorf("dictionary of %s: %v", dict, got)
		}
	}
}
