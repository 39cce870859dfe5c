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
			t.Fatal(err)
		}
		lowers = append(lowers, more...)
		images++
	}
	return images, lowers
}
