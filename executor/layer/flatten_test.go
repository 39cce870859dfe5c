package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// mount shows the lowers, lowest first, merged by the kernel's overlay.
func mount(t *testing.T, dir string, lowers []string) string {
	t.Helper()
	at := mkdir(t, dir, "merged")
	dirs := append([]string{mkdir(t, dir, "none")}, reversed(lowers)...)
	err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+strings.Join(dirs, ":"))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
		t.Skip("overlays cannot be mounted here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// entriesOf flattens layers by the rules as e2e/flat has them.
func entriesOf(t *testing.T, tars ...[]byte) (map[string]flat.Entry, error) {
	t.Helper()
	tree := flat.New()
	for _, b := range tars {
		if err := tree.Apply(bytes.NewReader(b)); err != nil {
			return nil, err
		}
	}
	return tree.Entries(flat.Options{LooseHardlinks: true}), nil
}

// What the overlay shows of the directories that Unpack makes is what flattening
// the layers gives: the rules are implemented a second time in e2e/flat.
func TestOverlayShowsFlattened(t *testing.T) {
	needRoot(t)
	t.Run("tmpfs", func(t *testing.T) {
		dir, valid := tmpfs(t), 0
		for seed := range uint64(200) {
			layers := randomLayers(t, seed)
			want, err := entriesOf(t, layers...)
			if err != nil {
				continue // for instance a file as a parent
			}
			ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
				if checkFlattened(t, mkdir(t, dir, fmt.Sprint(seed)), layers, want) {
					valid++
				}
			})
			if !ok {
				break
			}
		}
		if valid < 50 {
			t.Errorf("only %d of the random images were valid", valid)
		}
	})
}

func checkFlattened(t *testing.T, dir string, layers [][]byte, want map[string]flat.Entry) bool {
	var lowers []string
	for i, l := range layers {
		d := mkdir(t, dir, fmt.Sprint(i))
		_, err := Unpack(context.Background(), bytes.NewReader(l), d, UnpackOptions{Lowers: lowers})
		if errors.Is(err, ErrInvalid) && (strings.Contains(err.Error(), "after entries below it") ||
			strings.Contains(err.Error(), "is not a directory") || strings.Contains(err.Error(), "link to")) {
			return false // where flat is more liberal: it can link to what the link replaces
		}
		if err != nil {
			t.Fatalf("layer %d, %q: %v", i, names(t, l), err)
		}
		lowers = append(lowers, d)
	}
	merged := mount(t, dir, lowers)
	got, err := entriesOf(t, tarDir(t, merged))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range flat.Compare(sorted(want), sorted(got)) {
		t.Error(d)
	}
	again := t.TempDir()
	checkWritten(t, again, lowers, want)
	if t.Failed() {
		for i, l := range layers {
			t.Logf("layer %d: %s", i, listing(l))
		}
	}
	return true
}

// checkWritten writes lower directories as layers again. With the lowers known
// they flatten to the same; without, when an overlay has been made of them. (A
// directory in the place of a link becomes a directory with an opaque marker,
// which flat takes to be about the directory that the link led to.)
func checkWritten(t *testing.T, dir string, lowers []string, want map[string]flat.Entry) {
	var exact, blind [][]byte
	for i, d := range lowers {
		var b bytes.Buffer
		if _, err := writeTar(context.Background(), d, &b, PackOptions{Lowers: lowers[:i]}); err != nil {
			t.Fatal(err)
		}
		exact = append(exact, b.Bytes())
		blind = append(blind, tarDir(t, d))
	}
	got, err := entriesOf(t, exact...)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range flat.Compare(sorted(want), sorted(got)) {
		t.Errorf("written again: %s", d)
	}
	got, err = entriesOf(t, tarDir(t, mount(t, dir, stack(t, dir, blind...))))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range flat.Compare(sorted(want), sorted(got)) {
		t.Errorf("written again without lowers: %s", d)
	}
}

func sorted(m map[string]flat.Entry) []flat.Entry {
	var out []flat.Entry
	for _, p := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[p])
	}
	return out
}

func listing(b []byte) string {
	var s strings.Builder
	r := tar.NewReader(bytes.NewReader(b))
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		fmt.Fprintf(&s, "\n  %c %o %s %s", h.Typeflag, h.Mode, h.Name, h.Linkname)
	}
	return s.String()
}

// randomLayers makes a small image from few names, so that entries meet often.
func randomLayers(t *testing.T, seed uint64) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var out [][]byte
	var files []string
	for range 1 + r.IntN(4) {
		var marks, entries []entry
		seen := map[string]bool{}
		for range 1 + r.IntN(9) {
			e, mark := randomEntry(r, &files)
			if n := filepath.Clean("/" + e.Name); seen[n] {
				continue
			} else {
				seen[n] = true
			}
			if mark {
				marks = append(marks, e)
			} else {
				entries = append(entries, e)
			}
		}
		// A layer that says nothing of a directory and hides it after entries
		// in it may show other attributes; elsewhere the order is free.
		out = append(out, archive(t, append(marks, entries...)...))
	}
	return out
}

func randomEntry(r *rand.Rand, files *[]string) (e entry, mark bool) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	dir := ""
	for range r.IntN(4) {
		dir += pick("a", "b", "c") + "/"
	}
	name := dir + pick("a", "b", "c", "d")
	mode := int64([]int64{0o755, 0o700, 0o1777, 0o2755}[r.IntN(4)])
	switch r.IntN(12) {
	case 0, 1, 2:
		*files = append([]string{name}, *files...)
		return file(name, pick("1", "2", "3")).mode(mode), false
	case 3, 4, 5:
		return directory(name, mode).owned(r.IntN(3), 0), false
	case 6, 7:
		return symlink(name, pick("a", "b", "/a", "../b", "/b/c", "..", "nowhere/x", "a/b")), false
	case 8:
		// Others remove the directory first, and so do we: then nothing is left to link to.
		if target := append(*files, ""); !strings.HasPrefix(target[0], name+"/") && target[0] != "" {
			return link(name, target[0]), false
		}
		return ent(tar.TypeFifo, name, mode), false
	case 9:
		return file(dir+".wh..wh..opq", ""), true
	default:
		return file(dir+".wh."+pick("a", "b", "c", "d"), ""), true
	}
}

// Programs that others wrote read what WriteTar writes, and Unpack reads what
// they write.
func TestJudges(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	in := archive(t, judged()...)
	dir := stack(t, top, in)[0]
	want := withoutTimes(show(t, dir))
	t.Run("tar", func(t *testing.T) {
		out := mkdir(t, top, "tar")
		if filter(t, tarDir(t, dir), "tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out) == nil {
			if _, err := os.Stat("/usr/bin/tar"); err != nil {
				t.Skip("no tar here")
			}
		}
		equal(t, "by tar", withoutTimes(show(t, out)), want)
		for _, format := range []string{"gnu", "pax", "posix"} {
			b := filter(t, nil, "tar", "-c", "--format="+format, "--sparse", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--numeric-owner", "-C", dir, ".")
			if format == "gnu" {
				b = filter(t, nil, "tar", "-c", "--format=gnu", "--sparse", "--numeric-owner", "-C", dir, ".")
			}
			back := mkdir(t, top, format)
			if _, err := Unpack(context.Background(), bytes.NewReader(b), back, UnpackOptions{}); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			if format == "gnu" { // has no attributes
				equal(t, "of gnu", withoutAttrs(withoutTimes(show(t, back))), withoutAttrs(want))
				continue
			}
			equal(t, "of "+format, withoutTimes(show(t, back)), want)
		}
	})
	t.Run("umoci", func(t *testing.T) {
		image, bundle := top+"/image", top+"/bundle"
		if err := os.WriteFile(top+"/layer.tar", tarDir(t, dir), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"init", "--layout", image}, {"new", "--image", image + ":x"},
			{"raw", "add-layer", "--image", image + ":x", top + "/layer.tar"},
			{"unpack", "--image", image + ":x", bundle},
		} {
			if filter(t, nil, "umoci", args...) == nil {
				if len(args) > 1 && args[0] == "init" {
					if _, err := os.Stat(image); err != nil {
						t.Skip("no umoci here")
					}
				}
			}
		}
		equal(t, "by umoci", withoutTimes(show(t, bundle+"/rootfs")), want)
	})
}

// judged has no names or attributes that the judges are known not to keep.
func judged() []entry {
	long := strings.Repeat("x", 200)
	return []entry{
		directory("dir", 0o1777), file("dir/f", "data").owned(1000, 70000000), directory("dir/sub", 0o2750).owned(4, 5),
		symlink("dir/l", strings.Repeat("t", 300)), file("a", "1").mode(0o4711), link("a2", "a"), link("z", "a"),
		ent(tar.TypeFifo, "fifo", 0o600), device(tar.TypeChar, "dev", 10, 200), device(tar.TypeBlock, "blk", 40, 70),
		file("cap", "c").mode(0o755).xattr(capabilityAttr, capNetBind), file("attr", "a").xattr("user.k", "v"),
		file("bad\xff", "b"), file("new\nline", "n"), file("ünï", "u"), file(`back\slash`, ""), file("-dash", ""), file("a b", ""),
		file(long+"/"+long+"/f", "long"), directory(long, 0o755), directory(long+"/"+long, 0o755),
		file("sparse", strings.Repeat("\x00", 1<<20)+"end"), file("empty", ""), directory("emptydir", 0o700),
	}
}

func withoutTimes(lines []string) []string {
	var out []string
	for _, l := range lines {
		if i := strings.LastIndex(l, " @"); i >= 0 {
			l = l[:i]
		}
		out = append(out, l)
	}
	return out
}

func withoutAttrs(lines []string) []string {
	var out []string
	for _, l := range lines {
		l, _, _ = strings.Cut(l, " user.")
		l, _, _ = strings.Cut(l, " security.")
		out = append(out, l)
	}
	return out
}
