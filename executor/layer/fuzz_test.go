package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fuzzLimits keep a run short; what exceeds them is no finding.
var fuzzLimits = Limits{Bytes: 8 << 20, Entries: 500, PathLen: 300}

// seeds are archives of every kind, those of the tables of hostile ones included.
func seeds(f *testing.F) {
	add := func(entries []entry) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range entries {
			if w.WriteHeader(&e.Header) == nil {
				w.Write([]byte(e.data))
			}
		}
		w.Close()
		f.Add(b.Bytes())
		if b.Len() < 8192 {
			f.Add(gzipped(b.Bytes()))
		}
	}
	add(judged())
	for _, tc := range hostile {
		add(tc.in)
	}
	f.Add(zstded(archive(f, file("a", "1"))))
	f.Add(append(raw('x', "p", octal(len(sparseRecords)), []byte(sparseRecords)), raw('0', "f", octal(512), make([]byte, 512))...))
	f.Add(raw('0', "f", base256(-1), nil))
}

// fuzzCheck says whether an error is one that hostile input may cause.
func fuzzCheck(t *testing.T, c *canary, err error) {
	t.Helper()
	c.check(t)
	if err == nil || errors.Is(err, ErrInvalid) || errors.Is(err, ErrLimit) {
		return
	}
	for _, e := range []error{unix.ENAMETOOLONG, unix.EINVAL, unix.ENOSPC, unix.EFBIG, unix.ERANGE, unix.E2BIG, unix.EMLINK} {
		if errors.Is(err, e) {
			return
		}
	}
	t.Fatalf("error without a class: %v", err)
}

// FuzzUnpack: nothing outside is touched; what is unpacked, alone and over a
// layer of links, is written and unpacked again to the same bytes.
func FuzzUnpack(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCanary(t)
		ctx := context.Background()
		low := mkdir(t, c.root, "low")
		links := archive(t, c.aim([]entry{symlink("a", "CANARYDIR"), symlink("l", "../../.."), directory("d", 0o755), file("d/f", "1"), symlink("lib", "d")})...)
		if _, err := Unpack(ctx, bytes.NewReader(links), low, UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
		up := mkdir(t, c.root, "up")
		_, err := Unpack(ctx, bytes.NewReader(b), up, UnpackOptions{Lowers: []string{low}, Limits: fuzzLimits})
		fuzzCheck(t, c, err)
		if err != nil {
			return
		}
		one := fuzzTar(t, up)
		again := mkdir(t, c.root, "again")
		if _, err := Unpack(ctx, bytes.NewReader(one), again, UnpackOptions{Lowers: []string{low}}); err != nil {
			t.Fatalf("unpack what was written: %v", err)
		}
		if two := fuzzTar(t, again); !bytes.Equal(one, two) {
			t.Errorf("written again: not the same\n%q\n%q", names(t, one), names(t, two))
		}
	})
}

// fuzzTar writes a layer and checks its form: sorted, nothing twice.
func fuzzTar(t *testing.T, dir string) []byte {
	t.Helper()
	b := tarDir(t, dir)
	list := names(t, b)
	slices.Sort(list)
	for i, n := range list {
		if i > 0 && n == list[i-1] {
			t.Errorf("%q is there twice", n)
		}
		if strings.HasPrefix(n, "/") || slices.Contains(strings.Split(n, "/"), "..") {
			t.Errorf("entry %q", n)
		}
	}
	return b
}

// FuzzExtract: nothing outside of the root is touched, whatever it holds.
func FuzzExtract(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCanary(t)
		ctx := context.Background()
		links := archive(t, c.aim([]entry{symlink("a", "CANARYDIR"), symlink("l", "../../../.."), directory("d", 0o755), symlink("d/up", ".."), symlink("d/out", "CANARYDIR")})...)
		if _, err := Unpack(ctx, bytes.NewReader(links), c.root, UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
		before := show(t, c.root)
		IsArchive(bytes.NewReader(b))
		err := Extract(ctx, bytes.NewReader(b), c.root, "d", ExtractOptions{Limits: fuzzLimits, Owner: &[2]uint32{5, 6}})
		fuzzCheck(t, c, err)
		for _, l := range before {
			if (strings.HasPrefix(l, "a ") || strings.HasPrefix(l, "l ")) && !slices.Contains(show(t, c.root), l) {
				t.Errorf("beside the destination: %s is gone", l)
			}
		}
	})
}
