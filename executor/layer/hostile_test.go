package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// hostile are archives that try to reach something outside of the root. The
// canary's path, which is absolute and exists, stands for CANARY.
var hostile = map[string]struct {
	in      []entry
	layer   string // error as a layer; empty: harmless
	extract string // error under ADD
}{
	"up":                    {in: []entry{file("../x", "1")}, layer: "leads out"},
	"up after a name":       {in: []entry{file("a/../../x", "1")}, layer: "leads out"},
	"up after a dot":        {in: []entry{file("./../x", "1")}, layer: "leads out"},
	"up is a directory":     {in: []entry{directory("..", 0o777)}, layer: "leads out"},
	"absolute":              {in: []entry{file("CANARY", "1")}},
	"absolute and up":       {in: []entry{file("/../../CANARY", "1")}, layer: "leads out"},
	"backslashes":           {in: []entry{file(`..\..\x`, "1")}},
	"link out, file":        {in: []entry{symlink("l", "CANARYDIR"), file("l/canary", "1")}},
	"link up, file":         {in: []entry{symlink("l", "../../../../../../.."), file("l/CANARY", "1")}},
	"link out, same name":   {in: []entry{symlink("l", "CANARY"), file("l", "1")}},
	"link out, directory":   {in: []entry{symlink("l", "CANARYDIR"), directory("l", 0o777)}},
	"link out, chmod":       {in: []entry{symlink("l", "CANARY").mode(0o7777).owned(1, 1).xattr("user.x", "y")}},
	"link out, whiteout":    {in: []entry{symlink("l", "CANARYDIR"), file("l/.wh.canary", "")}},
	"link out, opaque":      {in: []entry{symlink("l", "CANARYDIR"), file("l/.wh..wh..opq", "")}},
	"link out, device":      {in: []entry{symlink("l", "CANARYDIR"), ent(tar.TypeFifo, "l/canary", 0o600)}},
	"link of a link out":    {in: []entry{symlink("k", "CANARYDIR"), symlink("l", "k/."), file("l/canary", "1")}},
	"link loop":             {in: []entry{symlink("k", "l"), symlink("l", "k"), file("l/x", "1")}, layer: "too many symbolic links", extract: "too many symbolic links"},
	"link grows":            {in: []entry{symlink("l", "l/l/l/l"), file("l/x", "1")}, layer: "too many symbolic links", extract: "too many symbolic links"},
	"link to nothing":       {in: []entry{symlink("l", ""), file("a", "")}, layer: "link target", extract: "link target"},
	"hard link out":         {in: []entry{link("h", "CANARY"), file("h", "1")}, layer: "no such file", extract: "no such file"},
	"hard link up":          {in: []entry{link("h", "../../CANARY")}, layer: "leads out", extract: "no such file"},
	"hard link via link":    {in: []entry{symlink("l", "CANARYDIR"), link("h", "l/canary")}, layer: "no such file", extract: "no such file"},
	"hard link to link":     {in: []entry{symlink("l", "CANARY"), link("h", "l"), file("h", "1")}},
	"hard link to root":     {in: []entry{link("h", "/")}, layer: "no such file", extract: "no such file"},
	"hard link to itself":   {in: []entry{link("h", "h")}, layer: "no such file", extract: "no such file"},
	"hard link to later":    {in: []entry{link("h", "f"), file("f", "")}, layer: "no such file", extract: "no such file"},
	"hard link to dir":      {in: []entry{directory("d", 0o755), link("h", "d")}, layer: "is a directory", extract: "is a directory"},
	"hard link into own":    {in: []entry{file("d/f", "1"), link("d", "d/f")}, layer: "no such file", extract: "no such file"},
	"root is a link":        {in: []entry{symlink("./", "CANARYDIR")}, layer: "root is not a directory"},
	"root is a file":        {in: []entry{file(".", "1")}, layer: "root is not a directory"},
	"root is a device":      {in: []entry{device(tar.TypeChar, ".", 1, 3)}, layer: "root is not a directory"},
	"root is a hard link":   {in: []entry{file("f", ""), link("/", "f")}, layer: "root is not a directory"},
	"file as a parent":      {in: []entry{file("f", "1"), file("f/x", "2")}, layer: "not a directory", extract: "not a directory"},
	"whiteout of no name":   {in: []entry{file(".wh.", "")}, layer: "whiteout of no name"},
	"whiteout of itself":    {in: []entry{file("d/.wh..", "")}, layer: "whiteout of no name"},
	"whiteout of parent":    {in: []entry{file("d/.wh...", "")}, layer: "whiteout of no name"},
	"below a whiteout":      {in: []entry{file(".wh.x/y", "")}, layer: "below a whiteout"},
	"literal whiteout":      {in: []entry{device(tar.TypeChar, "w", 0, 0)}, layer: "0:0", extract: "0:0"},
	"device out of range":   {in: []entry{device(tar.TypeChar, "w", 1<<16, 1)}, layer: "out of range", extract: "out of range"},
	"owner out of range":    {in: []entry{file("f", "").owned(1<<32-1, 0)}, layer: "out of range", extract: "out of range"},
	"owner below zero":      {in: []entry{file("f", "").owned(0, -5)}, layer: "out of range", extract: "out of range"},
	"long name":             {in: []entry{file(strings.Repeat("d/", 2100)+"f", "")}, layer: "name of more than", extract: "name of more than"},
	"long part":             {in: []entry{file(strings.Repeat("d", 300), "")}, layer: "file name too long", extract: "file name too long"},
	"deep":                  {in: []entry{file(strings.Repeat("d/", 1010)+"f", "")}, layer: "nested", extract: "nested"},
	"long link":             {in: []entry{symlink("l", strings.Repeat("x", 5000))}, layer: "link target", extract: "link target"},
	"unknown type":          {in: []entry{ent('Z', "z", 0o644)}, layer: "not supported", extract: "not supported"},
	"time far away":         {in: []entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "t", ModTime: time.Unix(1<<60, 0), Format: tar.FormatPAX}}}},
	"time long ago":         {in: []entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "t", ModTime: time.Unix(-1<<60, 0), Format: tar.FormatPAX}}}},
	"overlay's attributes":  {in: []entry{directory("d", 0o755).xattr("trusted.overlay.redirect", "/../.."), file("e", "").xattr("trusted.overlay.metacopy", "")}},
	"removed while in use":  {in: []entry{file("a/b/c", "1"), file("a/b", "2"), directory("a/b", 0o755), file("a/b/c", "3"), symlink("a", "b"), file("a", "4")}},
	"replaced by link":      {in: []entry{file("a/b/f", "1"), symlink("a", "CANARYDIR"), file("a/b/f", "1"), file("a/canary", "1")}},
	"parent becomes a link": {in: []entry{file("a/b/c/f", "1"), symlink("a/b", "CANARYDIR"), file("a/b/canary", "1"), link("a/b/h", "a/b/canary")}},
}

func TestHostile(t *testing.T) {
	needRoot(t)
	for name, tc := range hostile {
		t.Run(name, func(t *testing.T) {
			for _, extract := range []bool{false, true} {
				want := tc.layer
				if extract {
					want = tc.extract
				}
				c := newCanary(t)
				_, err := c.apply(archive(t, c.aim(tc.in)...), extract)
				c.check(t)
				switch {
				case want == "" && err != nil:
					t.Errorf("extract %v: %v", extract, err)
				case want != "" && err == nil:
					t.Errorf("extract %v: no error, want %q", extract, want)
				case want != "" && !strings.Contains(err.Error(), want):
					t.Errorf("extract %v: error %q, want %q", extract, err, want)
				}
				if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrLimit) && !errors.Is(err, unix.ENAMETOOLONG) {
					t.Errorf("extract %v: %v has no class", extract, err)
				}
			}
		})
	}
}

// canary is a directory with a file that nobody may touch, and a root beside it.
type canary struct {
	top, root string
	before    []string
}

func newCanary(t testing.TB) *canary {
	top := t.TempDir()
	c := &canary{top: top, root: mkdir(t, top, "tree/root")}
	mkdir(t, top, "out")
	if err := os.WriteFile(top+"/out/canary", []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.before = c.outside(t)
	return c
}

// outside describes everything but what is in the root.
func (c *canary) outside(t testing.TB) []string {
	var out []string
	for _, l := range show(t, c.top) {
		if !strings.HasPrefix(l, "tree/root/") && !strings.HasPrefix(l, "tree/root ") {
			out = append(out, l)
		}
	}
	return out
}

func (c *canary) check(t testing.TB) {
	t.Helper()
	equal(t, "outside", c.outside(t), c.before)
	if b, _ := os.ReadFile(c.top + "/out/canary"); string(b) != "safe" {
		t.Errorf("canary is %q", b)
	}
}

func (c *canary) aim(in []entry) []entry {
	r := strings.NewReplacer("CANARYDIR", c.top+"/out", "CANARY", c.top+"/out/canary")
	var out []entry
	for _, e := range in {
		e.Name, e.Linkname = r.Replace(e.Name), r.Replace(e.Linkname)
		out = append(out, e)
	}
	return out
}

func (c *canary) apply(b []byte, extract bool) (string, error) {
	if extract {
		return "", Extract(context.Background(), bytes.NewReader(b), c.root, "/", ExtractOptions{})
	}
	h, err := Unpack(context.Background(), bytes.NewReader(b), c.root, UnpackOptions{})
	return h.Hex, err
}

// Links that a layer below has lead into the root too.
func TestHostileLowers(t *testing.T) {
	needRoot(t)
	c := newCanary(t)
	low := stack(t, c.top+"/tree", archive(t, symlink("out", c.top+"/out"), symlink("up", "../../../../.."), directory("d", 0o755)))
	in := archive(t, c.aim([]entry{
		file("out/canary", "1"), file("up/CANARY", "1"), file("out/.wh.canary", ""), file("up/out/.wh..wh..opq", ""),
		directory("out", 0o777), symlink("d", "out"), file("d/canary", "1"),
	})...)
	if _, err := Unpack(context.Background(), bytes.NewReader(in), c.root, UnpackOptions{Lowers: low}); err != nil {
		t.Error(err)
	}
	c.before = nil
	for _, l := range c.outside(t) {
		if strings.HasPrefix(l, "out") {
			c.before = append(c.before, l)
		}
	}
	if len(c.before) != 2 || !strings.Contains(c.before[1], `0600 "safe"`) {
		t.Errorf("outside: %q", c.before)
	}
}

func TestHiddenAfterUse(t *testing.T) {
	needRoot(t)
	low := stack(t, t.TempDir(), archive(t, directory("usr/lib", 0o755), symlink("lib", "usr/lib"), symlink("usr/l2", "lib")))
	for name, in := range map[string][]entry{
		"whiteout":        {file("lib/x", ""), file(".wh.lib", "")},
		"whiteout above":  {file("usr/l2/x", ""), file(".wh.usr", "")},
		"opaque above":    {file("usr/l2/x", ""), file("usr/.wh..wh..opq", "")},
		"opaque the root": {file("usr/l2/x", ""), file(".wh..wh..opq", "")},
	} {
		_, err := Unpack(context.Background(), bytes.NewReader(archive(t, in...)), t.TempDir(), UnpackOptions{Lowers: low})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raw makes a header block by hand, with what archive/tar would not write.
func raw(kind byte, name, size string, body []byte) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "00000000000\x00        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	b = append(b, body...)
	return append(b, make([]byte, -len(body)&511)...)
}

func octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

func base256(n int64) string {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b[4:], uint64(n))
	if n < 0 {
		return "\xff\xff\xff\xff" + string(b[4:])
	}
	b[0] = 0x80
	return string(b)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for s := fmt.Sprint(n); len(s)+len(key)+len(value)+3 != n; s = fmt.Sprint(n) {
		n = len(s) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// Headers that archive/tar does not write: each is refused, in little memory.
func TestBombs(t *testing.T) {
	needRoot(t)
	pax := func(body string) []byte { return raw('x', "p", octal(len(body)), []byte(body)) }
	sparse10 := pax(paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") +
		paxRecord("GNU.sparse.realsize", "9223372036854775807") + paxRecord("GNU.sparse.name", "s"))
	for name, in := range map[string][]byte{
		"negative size":         raw('0', "f", base256(-1), nil),
		"huge size":             raw('0', "f", base256(1<<62), nil),
		"negative PAX size":     append(pax(paxRecord("size", "-1")), raw('0', "f", octal(0), nil)...),
		"NUL in PAX path":       append(pax(paxRecord("path", "a\x00b")), raw('0', "f", octal(0), nil)...),
		"PAX header of 1 GiB":   raw('x', "p", octal(1<<30), nil),
		"PAX records of 8 MiB":  append(pax(strings.Repeat(paxRecord("k", strings.Repeat("v", 50)), 8<<20/60)), raw('0', "f", octal(0), nil)...),
		"GNU name of 1 GiB":     raw('L', "p", octal(1<<30), nil),
		"sparse file of 8 EiB":  append(sparse10, raw('0', "f", octal(512), append([]byte("1\n9223372036854775807\n0\n"), make([]byte, 489)...))...),
		"sparse map of entries": append(sparse10, raw('0', "f", octal(1<<30), bytes.Repeat([]byte("1000000000\n1\n"), 1<<18))...),
		"endless entries":       bytes.Repeat(raw('0', "f", octal(0), nil), 2000),
		"old sparse, negative":  raw('S', "f", base256(-512), nil),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for _, extract := range []bool{false, true} {
				var err error
				lim := Limits{Entries: 1000}
				if extract {
					err = Extract(context.Background(), bytes.NewReader(in), t.TempDir(), "/", ExtractOptions{Limits: lim})
				} else {
					_, err = Unpack(context.Background(), bytes.NewReader(in), t.TempDir(), UnpackOptions{Limits: lim})
				}
				if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrLimit) {
					t.Errorf("extract %v: %v", extract, err)
				}
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
				t.Errorf("allocated %d MiB", n>>20)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	zeros := archive(t, file("f", strings.Repeat("\x00", 4<<20)))
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(zeros)
	w.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(zeros)
	z.Close()
	sparse := append(raw('x', "p", octal(len(sparseRecords)), []byte(sparseRecords)),
		raw('0', "f", octal(512), append([]byte("0\n"), make([]byte, 510)...))...)
	for name, tc := range map[string]struct {
		in  []byte
		lim Limits
		err error
	}{
		"size":            {zeros, Limits{Bytes: 1 << 20}, ErrLimit},
		"size, enough":    {zeros, Limits{Bytes: 5 << 20}, nil},
		"size of gzip":    {gz.Bytes(), Limits{Bytes: 1 << 20}, ErrLimit},
		"after the end":   {append(archive(t), zeros...), Limits{Bytes: 1 << 20}, ErrLimit},
		"entries":         {archive(t, file("a", ""), file("b", "")), Limits{Entries: 1}, ErrLimit},
		"entries, enough": {archive(t, file("a", ""), file("b", "")), Limits{Entries: 2}, nil},
		"names":           {archive(t, file("abcde", "")), Limits{PathLen: 4}, ErrLimit},
		"size of zstd":    {zs.Bytes(), Limits{Bytes: 1 << 20}, ErrLimit},
		"holes count":     {sparse, Limits{Bytes: 1 << 30}, ErrLimit},
		"holes":           {sparse, Limits{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Unpack(context.Background(), bytes.NewReader(tc.in), tmpfs(t), UnpackOptions{Limits: tc.lim})
			if !errors.Is(err, tc.err) {
				t.Errorf("%v, want %v", err, tc.err)
			}
		})
	}
}

var sparseRecords = paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") +
	paxRecord("GNU.sparse.realsize", fmt.Sprint(int64(3<<30))) + paxRecord("GNU.sparse.name", "s")

func TestRatio(t *testing.T) {
	for _, tc := range []struct {
		packed, stream int64
		err            error
	}{
		{100, freeBytes, nil},
		{100, freeBytes + 1, ErrLimit},
		{freeBytes / 50, freeBytes + 1, nil},
		{freeBytes / 100, freeBytes * 2, ErrLimit},
	} {
		m := &meter{lim: Limits{Ratio: 100}.withDefaults()}
		m.packed.Store(tc.packed)
		if err := m.read(int(tc.stream)); !errors.Is(err, tc.err) {
			t.Errorf("%d from %d: %v, want %v", tc.stream, tc.packed, err, tc.err)
		}
	}
}

// Attack 49: what is replaced again and again costs no more than it did to make.
func TestNotSuperlinear(t *testing.T) {
	needRoot(t)
	deep := strings.Repeat("d/", 100)
	var alternate, spread, links []entry
	for i := range 400 {
		alternate = append(alternate, directory("x", 0o755), file("x/"+deep+"f", ""), file("x", ""))
		spread = append(spread, file(fmt.Sprintf("%d/%sf%d", i%300, deep, i), ""))
		links = append(links, link(fmt.Sprintf("l%d", i), "f"))
	}
	for name, in := range map[string][]entry{
		"alternating": alternate, "spread": spread, "links": append([]entry{file("f", "1")}, links...),
	} {
		// Some seconds are enough; whoever copies or walks what is there for
		// every entry needs hours.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		start := time.Now()
		if _, err := Unpack(ctx, bytes.NewReader(archive(t, in...)), tmpfs(t), UnpackOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		t.Logf("%s: %v", name, time.Since(start))
	}
}

func TestCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	in := archive(t, file("a", "1"))
	if _, err := Unpack(ctx, bytes.NewReader(in), t.TempDir(), UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := Extract(ctx, bytes.NewReader(in), t.TempDir(), "/", ExtractOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
