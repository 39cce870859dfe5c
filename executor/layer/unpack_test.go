package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

var capNetBind = string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})

func TestUnpackEveryKind(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		long := strings.Repeat("x", 200)
		in := archive(t,
			directory("./", 0o755),
			directory("dir/", 0o1777),
			file("./dir/./a", "hello"),
			file("/abs", "abs").owned(1000, 2000),
			file("su", "su").mode(0o6755).owned(0, 5),
			file("umask", "u").mode(0o666),
			file("cap", "c").mode(0o755).owned(7, 7).xattr(capabilityAttr, capNetBind),
			file("attr", "a").xattr("user.x", "y"),
			symlink("dir/l", "../../../../etc/passwd").owned(3, 4),
			link("hard", "dir/a"), link("hardlink", "dir/l"),
			ent(tar.TypeFifo, "fifo", 0o622),
			device(tar.TypeChar, "null", 1, 3),
			device(tar.TypeBlock, "disk", 300, 70000).owned(0, 6),
			file("new\nline", "n"), file("bad\xff\xfe", "b"),
			file(long+"/"+long+"/f", "long"),
			file("implied/x", "i"),
			directory("sg", 0o2775).owned(0, 50), file("sg/f", "f"), directory("sg/d", 0o755), symlink("sg/l", "f"),
			file("zeros", strings.Repeat("\x00", 8192)+"end"),
		)
		dst := mkdir(t, dir, "out")
		diffID, err := Unpack(context.Background(), bytes.NewReader(in), dst, UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diffID.Hex != hexSum(in) {
			t.Errorf("diffID %s, want %s", diffID, hexSum(in))
		}
		const epoch = " @1970-01-01T00:00:00Z"
		equal(t, "unpacked", show(t, dst), []string{
			"dir dir 1777", `dir/a file 0644 "hello"`, `abs file 0644 1000:2000 "abs"`,
			`su file 6755 0:5 "su"`, `umask file 0666 "u"`,
			`cap file 0755 7:7 "c" security.capability=` + `"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`,
			`attr file 0644 "a" user.x="y"`,
			"dir/l link 0777 3:4 -> ../../../../etc/passwd", "hard = dir/a", "hardlink = dir/l",
			"fifo fifo 0622", "null char 0600 1:3", "disk block 0600 0:6 300:70000",
			`new\nline file 0644 "n"`, `bad\xff\xfe file 0644 "b"`,
			long + " dir 0755" + epoch, long + "/" + long + " dir 0755" + epoch, long + "/" + long + `/f file 0644 "long"`,
			"implied dir 0755" + epoch, `implied/x file 0644 "i"`,
			"sg dir 2775 0:50", `sg/f file 0644 "f"`, "sg/d dir 0755", "sg/l link 0777 -> f",
			"zeros file 0644 8195:" + hexSum([]byte(strings.Repeat("\x00", 8192) + "end"))[:8],
		})
	})
}

func TestUnpackOrderAndDuplicates(t *testing.T) {
	needRoot(t)
	for name, tc := range map[string]struct {
		in   []entry
		want []string
	}{
		"last wins":        {[]entry{file("a", "1"), file("a", "2")}, []string{`a file 0644 "2"`}},
		"file, then dir":   {[]entry{file("a", "1"), directory("a", 0o700), file("a/b", "2")}, []string{"a dir 0700", `a/b file 0644 "2"`}},
		"dir, then file":   {[]entry{directory("a", 0o700), file("a/b", "2"), file("a", "1")}, []string{`a file 0644 "1"`}},
		"dir, then link":   {[]entry{file("a/b/c", "2"), symlink("a", "x")}, []string{"a link 0777 -> x"}},
		"dir twice":        {[]entry{directory("a", 0o700), file("a/b", "1"), directory("a", 0o711)}, []string{"a dir 0711", `a/b file 0644 "1"`}},
		"children first":   {[]entry{file("a/b", "1"), directory("a", 0o711)}, []string{"a dir 0711", `a/b file 0644 "1"`}},
		"link broken":      {[]entry{file("a", "1"), link("b", "a"), file("a", "2")}, []string{`a file 0644 "2"`, `b file 0644 "1"`}},
		"link to itself":   {[]entry{file("a", "1"), link("a", "a"), link("./a", "/a")}, []string{`a file 0644 "1"`}},
		"link replaces":    {[]entry{file("a", "1"), file("b", "2"), link("b", "a")}, []string{`a file 0644 "1"`, "b = a"}},
		"through link":     {[]entry{directory("real", 0o755), symlink("l", "real"), file("l/f", "1")}, []string{"real dir 0755", "l link 0777 -> real", `real/f file 0644 "1"`}},
		"through absolute": {[]entry{directory("d/real", 0o755), directory("d", 0o755), symlink("d/l", "/d/../d/real"), file("d/l/f", "1")}, []string{"d dir 0755", "d/real dir 0755", "d/l link 0777 -> /d/../d/real", `d/real/f file 0644 "1"`}},
		"through excess":   {[]entry{directory("d", 0o755), symlink("d/l", "../../../../d"), file("d/l/f", "1")}, []string{"d dir 0755", "d/l link 0777 -> ../../../../d", `d/f file 0644 "1"`}},
		"global header":    {[]entry{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}}, file("a", "1")}, []string{`a file 0644 "1"`}},
		"whiteouts of nothing": {[]entry{file(".wh.gone", ""), file("d/.wh..wh..opq", ""), directory(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", ""), file("a", "1")},
			[]string{`a file 0644 "1"`}},
		"xattrs stripped": {[]entry{file("a", "1").xattr("user.overlay.opaque", "y"), directory("b", 0o755).xattr(opaqueAttr, "y"), file("c", "").xattr("security.selinux", "s"), file("d", "").xattr("security.ima", "s")},
			[]string{`a file 0644 "1"`, "b dir 0755", `c file 0644 ""`, `d file 0644 ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := stack(t, t.TempDir(), archive(t, tc.in...))
			equal(t, "unpacked", show(t, dirs[0]), tc.want)
		})
	}
}

// The layer's own directory is shown: what the overlay gets to see.
func TestUnpackOverLowers(t *testing.T) {
	needRoot(t)
	base := []entry{
		directory("data", 0o750).owned(5, 6), file("data/keep", "k"), file("data/gone", "g"),
		directory("data/opq", 0o711).xattr("user.a", "b"), file("data/opq/old", "o"),
		directory("usr/lib", 0o755), symlink("lib", "usr/lib"), file("usr/lib/x", "x"), directory("usr", 0o755),
		file("plain", "p"), link("plain2", "plain"), symlink("abs", "/data"), symlink("sl", "plain"),
		file("capped", "c").owned(1, 2).mode(0o4755).xattr(capabilityAttr, capNetBind),
	}
	const epoch = " @1970-01-01T00:00:00Z"
	data := "data dir 0750 5:6"
	for name, tc := range map[string]struct {
		in   []entry
		want []string
	}{
		"parent keeps attributes": {[]entry{file("data/opq/n", "n")}, []string{data, `data/opq dir 0711 user.a="b"`, `data/opq/n file 0644 "n"`}},
		"parent through link":     {[]entry{file("lib/y", "y"), directory("lib/sub", 0o700)}, []string{"usr dir 0755", "usr/lib dir 0755", `usr/lib/y file 0644 "y"`, "usr/lib/sub dir 0700"}},
		"parent through absolute": {[]entry{file("abs/y", "y")}, []string{data, `data/y file 0644 "y"`}},
		"link replaced by dir":    {[]entry{directory("lib", 0o700), file("lib/y", "y")}, []string{"lib dir 0700", `lib/y file 0644 "y"`}},
		"whiteout":                {[]entry{file("data/.wh.gone", "")}, []string{data, "data/gone whiteout"}},
		"whiteout through link":   {[]entry{file("lib/.wh.x", "")}, []string{"usr dir 0755", "usr/lib dir 0755", "usr/lib/x whiteout"}},
		"whiteout of nothing":     {[]entry{file("data/.wh.nothing", ""), file("none/.wh.x", ""), file("plain/.wh.x", "")}, []string{data}},
		"whiteout, then file":     {[]entry{file(".wh.plain", ""), file("plain", "2")}, []string{`plain file 0644 "2"`}},
		"file, then whiteout":     {[]entry{file("plain", "2"), file(".wh.plain", "")}, []string{`plain file 0644 "2"`}},
		"whiteout, then dir":      {[]entry{file(".wh.data", ""), directory("data", 0o700), file("data/n", "n")}, []string{`data dir 0700 OPAQUE="y"`, `data/n file 0644 "n"`}},
		"dir, then whiteout":      {[]entry{directory("data", 0o700), file("data/n", "n"), file(".wh.data", "")}, []string{`data dir 0700 OPAQUE="y"`, `data/n file 0644 "n"`}},
		"whiteout, then child":    {[]entry{file(".wh.data", ""), file("data/n", "n")}, []string{`data dir 0755 OPAQUE="y"` + epoch, `data/n file 0644 "n"`}},
		"whiteout of link, child": {[]entry{file(".wh.lib", ""), file("lib/n", "n")}, []string{"lib dir 0755" + epoch, `lib/n file 0644 "n"`}},
		"opaque":                  {[]entry{file("data/opq/.wh..wh..opq", ""), file("data/opq/n", "n")}, []string{data, `data/opq dir 0711 user.a="b" OPAQUE="y"`, `data/opq/n file 0644 "n"`}},
		"opaque last":             {[]entry{file("data/opq/n", "n"), file("data/opq/.wh..wh..opq", "")}, []string{data, `data/opq dir 0711 user.a="b" OPAQUE="y"`, `data/opq/n file 0644 "n"`}},
		"file, then dir again":    {[]entry{file("data", "1"), directory("data", 0o755)}, []string{`data dir 0755 OPAQUE="y"`}},
		"opaque root": {[]entry{file(".wh..wh..opq", ""), file("data/n", "n"), file("plain", "2")},
			[]string{"abs whiteout", "capped whiteout", `data dir 0755 OPAQUE="y"` + epoch, `data/n file 0644 "n"`, "lib whiteout", `plain file 0644 "2"`, "plain2 whiteout", "sl whiteout", "usr whiteout"}},
		"whiteout not through own link": {[]entry{symlink("data", "usr"), file("data/.wh.lib", "")}, []string{"data link 0777 -> usr"}},
		"link to lower file": {[]entry{link("new", "capped"), link("data/new", "lib/x"), link("nsl", "sl")},
			[]string{`capped file 4755 1:2 "c" security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`, "new = capped", data, `data/new file 0644 "x"`, "usr dir 0755", "usr/lib dir 0755", "usr/lib/x = data/new", "nsl link 0777 -> plain", "sl = nsl"}},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := stack(t, t.TempDir(), archive(t, base...), archive(t, tc.in...))
			equal(t, "upper layer", show(t, dirs[1]), tc.want)
		})
	}
}

// Attributes of the root are those of the layer below unless the layer says
// otherwise: the overlay shows the uppermost.
func TestUnpackRootAttributes(t *testing.T) {
	needRoot(t)
	dirs := stack(t, t.TempDir(),
		archive(t, directory("./", 0o711).owned(3, 4), file("a", "a")),
		archive(t, file("b", "b")),
		archive(t, directory("/", 0o700), file("c", "c")))
	for i, want := range []uint32{0o711, 0o711, 0o700} {
		var st unix.Stat_t
		if err := unix.Lstat(dirs[i], &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != want || (st.Uid == 3) != (i < 2) || st.Mtim.Nsec != int64(plain.Nanosecond()) {
			t.Errorf("layer %d: root is %o %d:%d %v", i, st.Mode, st.Uid, st.Gid, st.Mtim)
		}
	}
}

func TestUnpackCompressed(t *testing.T) {
	needRoot(t)
	plainTar := append(archive(t, file("a", "1")), bytes.Repeat([]byte("rest"), 5000)...)
	var gz, zs bytes.Buffer
	for i := range 2 { // two members, as some tools write
		w := gzip.NewWriter(&gz)
		w.Write(plainTar[i*700 : len(plainTar)*i+700*(1-i)])
		w.Close()
	}
	z, _ := zstd.NewWriter(&zs)
	z.Write(plainTar)
	z.Close()
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zs.Bytes()...)
	for name, tc := range map[string]struct {
		in  []byte
		err string
	}{
		"plain": {plainTar, ""}, "gzip": {gz.Bytes(), ""}, "zstd": {zs.Bytes(), ""}, "zstd with a skippable frame": {skippable, ""},
		"gzip cut":           {gz.Bytes()[:gz.Len()-20], "unexpected EOF"},
		"gzip with garbage":  {append(bytes.Clone(gz.Bytes()), "garbage after"...), "invalid archive"},
		"gzip with bad sum":  {flip(gz.Bytes(), gz.Len()-6), "checksum"},
		"zstd cut":           {zs.Bytes()[:zs.Len()-9], "invalid archive"},
		"zstd with garbage":  {append(bytes.Clone(zs.Bytes()), "garbage after"...), "invalid archive"},
		"plain cut in file":  {plainTar[:513], "unexpected EOF"},
		"bzip2":              {[]byte("BZh91AY&SY"), "bzip2 is not supported"},
		"neither of them":    {bytes.Repeat([]byte("no tar "), 100), "invalid tar header"},
		"empty is no entry":  {nil, ""},
		"zeros are no entry": {make([]byte, 10240), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			got, err := Unpack(context.Background(), bytes.NewReader(tc.in), dir, UnpackOptions{})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir + "/a"); err == nil && got.Hex != hexSum(plainTar) {
				t.Errorf("diffID %s is not of all bytes", got)
			}
		})
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}
