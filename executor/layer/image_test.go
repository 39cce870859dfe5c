package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// writeImage makes an image of a layer in dir/name and returns its error.
func writeImage(t *testing.T, dir string, layer []byte) (file string, err error) {
	t.Helper()
	f, err := os.CreateTemp(dir, "image")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	first, sum, err := Image(t.Context(), bytes.NewReader(layer), f, ImageOptions{Spool: func() (*os.File, error) { return os.CreateTemp(dir, "spool") }})
	if err != nil {
		return "", err
	}
	if want := hexSum(layer); sum.Hex != want {
		t.Errorf("digest %s instead of %s", sum, want)
	}
	if _, err := f.WriteAt(first, 0); err != nil {
		t.Fatal(err)
	}
	return f.Name(), nil
}

// needImages skips where no image can be mounted, such as inside gVisor.
func needImages(t *testing.T, dir string) {
	t.Helper()
	file, err := writeImage(t, dir, archive(t, directory("./", 0o755)))
	if err != nil {
		t.Fatal(err)
	}
	mountImage(t, dir, file)
}

// mountImage mounts an image with the kernel.
func mountImage(t *testing.T, dir, file string) string {
	t.Helper()
	at := mkdir(t, dir, filepath.Base(file)+"-mounted")
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro", file, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel does not mount an image: %s", out)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// What an overlay of images shows is what flattening the layers gives; layers
// that are no images of their own are unpacked.
func TestImagesShowFlattened(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t)
	needImages(t, dir)
	images, valid := 0, 0
	for seed := range uint64(300) {
		layers := randomLayers(t, seed)
		if seed%2 == 0 {
			layers = tamed(t, mkdir(t, dir, fmt.Sprint("t", seed)), layers)
		}
		want, err := entriesOf(t, layers...)
		if err != nil {
			continue
		}
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			made, lowers := lowersOf(t, mkdir(t, dir, fmt.Sprint("i", seed)), layers)
			if lowers == nil {
				return
			}
			images += made
			valid++
			got, err := entriesOf(t, tarDir(t, mount(t, mkdir(t, dir, fmt.Sprint("m", seed)), lowers)))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range flat.Compare(sorted(want), sorted(got)) {
				t.Error(d)
			}
			for i, l := range layers {
				if t.Failed() {
					t.Logf("layer %d: %s", i, listing(l))
				}
			}
		})
		if !ok {
			break
		}
	}
	if valid < 100 || images < 150 {
		t.Errorf("only %d valid images of layers, %d of them EROFS", valid, images)
	}
}

// Files that gVisor cannot read from an image are seen like all others, and so is
// the root.
func TestImageShowsUnpacked(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t)
	needImages(t, dir)
	ways := []entry{directory(strings.Repeat("x", 200), 0o755), directory(strings.Repeat("x", 200)+"/"+strings.Repeat("x", 200), 0o755)}
	layers := [][]byte{
		archive(t, directory("./", 0o711).owned(3, 4), directory("opaque", 0o755), file("opaque/below", "b"), directory("gone", 0o755), file("gone/f", "f")),
		archive(t, append(ways, judged()...)...),
		archive(t, directory("deep", 0o2775).owned(5, 6), directory("deep/er", 0o700).xattr("user.k", "dir"),
			file("deep/er/cap", "c").xattr(capabilityAttr, capNetBind), link("deep/er/cap2", "deep/er/cap"), link("deep/hard", "deep/er/cap2"),
			device(tar.TypeChar, "deep/null", 1, 3), file("deep/er/plain", "p"),
			directory("opaque", 0o750), file("opaque/"+opaqueMarker, ""), file("opaque/own", "o"), file(".wh.gone", ""), file(".wh.never", "")),
	}
	var unpacked []string
	for i, l := range layers {
		d := mkdir(t, dir, fmt.Sprint("u", i))
		if _, err := Unpack(t.Context(), bytes.NewReader(l), d, UnpackOptions{Lowers: unpacked}); err != nil {
			t.Fatal(err)
		}
		unpacked = append(unpacked, d)
	}
	images, lowers := lowersOf(t, mkdir(t, dir, "images"), layers)
	if images != len(layers) {
		t.Errorf("%d images", images)
	}
	at := mount(t, mkdir(t, dir, "m"), lowers)
	equal(t, "images", show(t, at), show(t, mount(t, mkdir(t, dir, "n"), unpacked)))
	var st unix.Stat_t
	if err := unix.Lstat(lowers[len(lowers)-1], &st); err != nil || st.Mode&0o7777 != 0o711 || st.Uid != 3 {
		t.Errorf("root is %o %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
}

// A layer need not describe the directories of its files: they are as the layers below
// say, and so is where its files are when a link of theirs is on the way.
func TestImageOfUndescribed(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t)
	needImages(t, dir)
	below := archive(t, directory("./", 0o711).owned(3, 4), directory("d", 0o2750).owned(5, 6).xattr("user.k", "below"),
		directory("d/e", 0o700), file("d/e/kept", "k"), directory("usr", 0o755), directory("usr/lib", 0o751), file("usr/lib/kept", "k"),
		directory("opaque", 0o755), file("opaque/below", "b"), directory("gone", 0o755), file("gone/f", "f"), symlink("lib", "usr/lib"))
	special := []entry{
		directory("d/e/own", 0o1777).owned(7, 8), file("d/e/own/f", "f"), file("d/new/f", "n"), link("d/e/hard", "d/new/f"),
		file("d/e/own/in/cap", "c").xattr(capabilityAttr, capNetBind), device(tar.TypeChar, "d/dev/null", 1, 3),
		directory("opaque", 0o750), file("opaque/"+opaqueMarker, ""), file("opaque/own", "o"), file(".wh.gone", ""), file("d/e/.wh.kept", ""),
	}
	for _, tt := range []struct {
		name   string
		layer  []byte
		lowers int
		image  bool
	}{
		{"files", archive(t, file("d/e/f", "f")), 2, true},
		{"with a root", archive(t, directory("./", 0o700).owned(9, 9), file("d/e/f", "f")), 2, true},
		{"all sorts", archive(t, special...), 4, true},
		{"through a link", archive(t, file("lib/f", "f")), 1, true},
		{"all sorts and through a link", archive(t, append(special, file("lib/new/f", "f"), directory("lib/own", 0o700))...), 1, true},
		{"with a root and through a link", archive(t, directory("./", 0o700).owned(9, 9), file("lib/f", "f")), 1, true},
		{"described late", archive(t, file("d/e/f", "f"), directory("d", 0o700)), 0, false},
		{"hidden", archive(t, file(".wh.d", ""), file("d/e/f", "f")), 0, false},
		{"hides in what it does not describe", archive(t, file("d/.wh.e", ""), file("d/f", "f")), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := mkdir(t, dir, tt.name)
			base, lower := mkdir(t, dir, "base"), mkdir(t, dir, "unpacked")
			if _, err := Unpack(t.Context(), bytes.NewReader(below), base, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := Unpack(t.Context(), bytes.NewReader(tt.layer), lower, UnpackOptions{Lowers: []string{base}}); err != nil {
				t.Fatal(err)
			}
			file, err := writeImage(t, dir, tt.layer)
			if tt.image == errors.Is(err, ErrUnsuited) {
				t.Fatal(err)
			}
			if !tt.image {
				return
			}
			made := 0
			lowers, err := Lowers(t.Context(), mountImage(t, dir, file), []string{base}, func() (string, error) {
				made++
				return mkdir(t, dir, fmt.Sprint("l", made)), nil
			}, nil)
			if err != nil || len(lowers) != tt.lowers {
				t.Fatalf("%d lowers, %v", len(lowers), err)
			}
			want := mount(t, mkdir(t, dir, "w"), []string{base, lower})
			equal(t, tt.name, show(t, mount(t, mkdir(t, dir, "m"), append([]string{base}, lowers...))), show(t, want))
			var got, root unix.Stat_t
			if err := errors.Join(unix.Lstat(lowers[len(lowers)-1], &got), unix.Lstat(lower, &root)); err != nil || got.Mode != root.Mode || got.Uid != root.Uid {
				t.Errorf("root is %o %d, not %o %d, %v", got.Mode, got.Uid, root.Mode, root.Uid, err)
			}
		})
	}
}

// TestImpliedOfAnother: an image may be of somebody who wants to look out of it.
func TestImpliedOfAnother(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	files := mkdir(t, dir, imageFiles)
	mkdir(t, files, ".a")
	if err := os.Symlink("/etc", filepath.Join(files, "link")); err != nil {
		t.Fatal(err)
	}
	below := mkdir(t, t.TempDir(), "below")
	for list, want := range map[string]error{
		".a\x00": nil, ".\x00.a\x00": nil,
		"": ErrInvalid, "/etc\x00": ErrInvalid, "../x\x00": ErrInvalid, ".a/../x\x00": ErrInvalid, "a//b\x00": ErrInvalid, "..\x00": ErrInvalid,
		"link\x00": ErrUnsuited, "link/ssl\x00": ErrUnsuited, "nowhere\x00": unix.ENOENT, strings.Repeat("x", 2*maxImplied): unix.ENAMETOOLONG,
	} {
		if err := os.WriteFile(filepath.Join(dir, imageImplied), []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Lowers(t.Context(), dir, []string{below}, func() (string, error) { return t.TempDir(), nil }, nil); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", list, err, want)
		}
	}
}

// tamed writes layers as this package does it: every directory has an entry.
func tamed(t *testing.T, dir string, layers [][]byte) (list [][]byte) {
	t.Helper()
	var lowers []string
	for i, l := range layers {
		d := mkdir(t, dir, fmt.Sprint(i))
		if _, err := Unpack(t.Context(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers}); err != nil {
			return layers
		}
		var b bytes.Buffer
		if _, err := writeTar(t.Context(), d, &b, PackOptions{Lowers: lowers, Root: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
		lowers, list = append(lowers, d), append(list, b.Bytes())
	}
	return list
}

// lowersOf makes lowers of layers, and tells how many were images.
func lowersOf(t *testing.T, dir string, layers [][]byte) (images int, lowers []string) {
	t.Helper()
	for i, l := range layers {
		file, err := writeImage(t, dir, l)
		switch {
		case errors.Is(err, ErrUnsuited):
			d := mkdir(t, dir, fmt.Sprint(i))
			if _, err := Unpack(t.Context(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers}); err != nil {
				return 0, nil
			}
			lowers = append(lowers, d)
			continue
		case err != nil:
			d := mkdir(t, dir, fmt.Sprint(i))
			if _, uerr := Unpack(t.Context(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers}); uerr == nil {
				t.Errorf("no image, but it can be unpacked: %v", err)
			}
			return 0, nil
		}
		made := 0
		more, err := Lowers(t.Context(), mountImage(t, dir, file), lowers, func() (string, error) {
			made++
			d := filepath.Join(dir, fmt.Sprintf("%d-%d", i, made))
			return d, os.Mkdir(d, 0o755)
		}, nil)
		if err != nil {
			d := mkdir(t, dir, fmt.Sprint(i))
			if _, uerr := Unpack(t.Context(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers}); uerr == nil {
				t.Errorf("an image of no use, but it can be unpacked: %v", err)
			}
			return 0, nil
		}
		lowers = append(lowers, more...)
		images++
	}
	return images, lowers
}
