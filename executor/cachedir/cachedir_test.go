package cachedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const size = 1 << 20 // limit of the directories here

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "mounts"), size, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func layerOf(data string) Layer {
	sum := sha256.Sum256([]byte(data))
	return Layer{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// add puts a layer on top of base.
func (d *Dir) add(key Key, data, base string) error {
	in, err := d.Create(key, layerOf(data))
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := io.WriteString(in, data); err != nil {
		return err
	}
	return in.Commit(base)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// texts are the layers of a cache.
func (d *Dir) texts(t *testing.T, key Key) (texts []string, chain string) {
	t.Helper()
	s, err := d.Take(key)
	must(t, err)
	defer s.Close()
	for _, f := range s.Files {
		b, err := io.ReadAll(f)
		must(t, err)
		texts = append(texts, string(b))
	}
	return texts, s.Chain()
}

// want checks the layers of a cache and that no other file is in the directory.
func (d *Dir) want(t *testing.T, key Key, want ...string) (chain string) {
	t.Helper()
	got, chain := d.texts(t, key)
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("layers %q, want %q", got, want)
	}
	if entries, err := os.ReadDir(filepath.Join(d.path, string(key))); err == nil && len(entries) != len(want)+1 {
		t.Errorf("%d files for %d layers", len(entries), len(want))
	}
	if left, _ := filepath.Glob(filepath.Join(d.path, ".new-*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	return chain
}

func TestLayersOnLayers(t *testing.T) {
	d, key, other := open(t), KeyOf("a"), KeyOf("b")
	if chain := d.want(t, key); chain != "" {
		t.Errorf("a cache that is not there is %q", chain)
	}
	must(t, d.add(key, "one", ""))
	first := d.want(t, key, "one")
	must(t, d.add(key, "two", first))
	second := d.want(t, key, "one", "two")
	must(t, d.add(other, "else", ""))
	d.want(t, other, "else")
	if err := d.add(key, "late", first); !errors.Is(err, ErrStale) {
		t.Errorf("a layer on a state that is gone: %v", err)
	}
	if again := d.want(t, key, "one", "two"); again != second || first == second || len(first) != 71 {
		t.Errorf("chains %q, %q, %q", first, second, again)
	}
	must(t, d.add(key, "whole", ""))
	d.want(t, key, "whole")
	d.want(t, other, "else")
}

// TestSnapshotLasts: what was taken can be read when the cache is another.
func TestSnapshotLasts(t *testing.T) {
	d, key := open(t), KeyOf("a")
	must(t, d.add(key, "old", ""))
	s, err := d.Take(key)
	must(t, err)
	defer s.Close()
	must(t, d.add(key, "new", ""))
	if b, err := io.ReadAll(s.Files[0]); err != nil || string(b) != "old" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, os.RemoveAll(filepath.Join(d.path, string(key), layerHex("new"))))
	d.want(t, key) // removed between index and layer
}

func layerHex(data string) string { return strings.TrimPrefix(layerOf(data).Digest, "sha256:") }

func TestWhatIsWrong(t *testing.T) {
	d, key := open(t), KeyOf("a")
	for name, err := range map[string]error{
		"key with a path":   d.add("../"+key[3:], "x", ""),
		"no key":            d.add("", "x", ""),
		"key in capitals":   d.add(Key(strings.ToUpper(string(KeyOf("A")))), "x", ""),
		"digest":            create(d, key, Layer{Digest: "sha256:../../x", Size: 1}),
		"negative":          create(d, key, Layer{Digest: layerOf("x").Digest, Size: -1}),
		"touch with a path": d.Touch("..", "x"),
		"too many bytes":    write(d, key, Layer{Digest: layerOf("xy").Digest, Size: 1}, "xy"),
		"too few bytes":     write(d, key, Layer{Digest: layerOf("x").Digest, Size: 2}, "x"),
		"another digest":    write(d, key, Layer{Digest: layerOf("y").Digest, Size: 1}, "x"),
	} {
		if name == "negative" && errors.Is(err, ErrTooLarge) {
			continue
		}
		if !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := create(d, key, Layer{Digest: layerOf("x").Digest, Size: size + 1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := d.Take("x"); !errors.Is(err, ErrForm) {
		t.Errorf("take: %v", err)
	}
	entries, err := os.ReadDir(d.path)
	must(t, err)
	for _, e := range entries {
		if e.Name() != "lock" {
			t.Errorf("made %s", e.Name())
		}
	}
	d.path = "/proc/self" // where nothing is free
	if err := create(d, key, layerOf("x")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
}

func create(d *Dir, key Key, l Layer) error {
	in, err := d.Create(key, l)
	if err == nil {
		in.Discard()
	}
	return err
}

func write(d *Dir, key Key, l Layer, data string) error {
	in, err := d.Create(key, l)
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := io.WriteString(in, data); err != nil {
		return err
	}
	return in.Commit("")
}

func TestDamage(t *testing.T) {
	layer := layerOf("one")
	for name, index := range map[string]string{
		"no JSON":     "{",
		"empty":       "",
		"no layers":   `{"layers":[]}`,
		"a path":      `{"layers":[{"digest":"sha256:../../../etc/passwd","size":1}]}`,
		"size":        fmt.Sprintf(`{"layers":[{"digest":%q,"size":4}]}`, layer.Digest),
		"negative":    fmt.Sprintf(`{"layers":[{"digest":%q,"size":-1}]}`, layer.Digest),
		"too many":    `{"layers":[` + strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"digest":%q,"size":3},`, layer.Digest), MaxLayers+1), ",") + `]}`,
		"a long file": strings.Repeat(" ", maxIndex) + fmt.Sprintf(`{"layers":[{"digest":%q,"size":3}]}`, layer.Digest),
	} {
		d, key := open(t), KeyOf("a")
		must(t, d.add(key, "one", ""))
		must(t, os.WriteFile(d.index(key), []byte(index), 0o600))
		if _, err := d.Take(key); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, d.add(key, "new", "")) // begins anew
		d.want(t, key, "new")
	}
	d, key := open(t), KeyOf("a")
	must(t, d.add(key, "one", ""))
	file := filepath.Join(d.path, string(key), layerHex("one"))
	same := filepath.Join(t.TempDir(), "same")
	must(t, os.WriteFile(same, []byte("one"), 0o600))
	for name, plant := range map[string]func() error{
		"link": func() error { return os.Symlink(same, file) },
		"pipe": func() error { return unix.Mkfifo(file, 0o600) },
	} {
		must(t, os.Remove(file))
		must(t, plant())
		if s, err := d.Take(key); err == nil {
			t.Errorf("%s in place of a layer: %+v", name, s)
		}
	}
}

func TestTrim(t *testing.T) {
	d := open(t)
	block := strings.Repeat("x", size/3)
	for i := range 4 {
		must(t, d.add(KeyOf(fmt.Sprint(i)), block+fmt.Sprint(i), ""))
		time.Sleep(2 * time.Millisecond)
	}
	_, first := d.texts(t, KeyOf("0"))
	must(t, d.Touch(KeyOf("0"), first))
	must(t, d.Touch(KeyOf("1"), first)) // of another state: does not count
	must(t, os.Mkdir(filepath.Join(d.path, string(KeyOf("broken"))), 0o700))
	r, err := d.Trim()
	must(t, err)
	if want := (Removed{Caches: 3, Bytes: 2 * (size/3 + 1)}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	for name, want := range map[string]bool{"0": true, "1": false, "2": false, "3": true, "broken": false} {
		if _, err := os.Stat(filepath.Join(d.path, string(KeyOf(name)))); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err = d.Trim(); err != nil || r != (Removed{}) {
		t.Errorf("again: %+v, %v", r, err)
	}
}

func TestPrune(t *testing.T) {
	d := open(t)
	must(t, d.add(KeyOf("old"), "one", ""))
	time.Sleep(2 * time.Millisecond)
	between := time.Now()
	must(t, d.add(KeyOf("new"), "two", ""))
	dead := filepath.Join(d.path, ".new-dead")
	must(t, os.WriteFile(dead, nil, 0o600))
	living, err := d.Create(KeyOf("living"), layerOf("one"))
	must(t, err)
	r, err := Prune(d.path, between)
	if err != nil || r != (Removed{1, 3}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("what a dead writer left is there")
	}
	if _, err := os.Stat(living.f.Name()); err != nil {
		t.Errorf("of a living writer: %v", err)
	}
	living.Discard()
	if r, err = Prune(d.path, time.Time{}); err != nil || r != (Removed{1, 3}) {
		t.Errorf("%+v, %v", r, err)
	}
	if entries, err := os.ReadDir(d.path); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if r, err = Prune(filepath.Join(d.path, "none"), time.Time{}); err != nil || r != (Removed{}) {
		t.Errorf("nothing there: %+v, %v", r, err)
	}
}

// TestAtOnce: many builds, in turn reading, adding, replacing and removing; who
// reads always finds a state that was one.
func TestAtOnce(t *testing.T) {
	d, key := open(t), KeyOf("a")
	must(t, d.add(key, "begin", ""))
	var builds sync.WaitGroup
	for i := range 8 {
		builds.Go(func() {
			own, err := Open(d.path, size, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range 50 {
				s, err := own.Take(key)
				if err != nil {
					t.Error(err)
					return
				}
				for j, f := range s.Files {
					if b, err := io.ReadAll(f); err != nil || layerOf(string(b)) != s.Layers[j] {
						t.Errorf("%q, %v", b, err)
					}
				}
				s.Close()
				base := s.Chain()
				if len(s.Layers) > 5 {
					base = ""
				}
				if err := own.add(key, fmt.Sprint(i, n), base); err != nil && !errors.Is(err, ErrStale) {
					t.Error(err)
				}
				if n%20 == 19 {
					if _, err := Prune(d.path, time.Now()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	builds.Wait()
}

// TestLinkedCache: a link in place of a cache leads nowhere, least of all to
// files that would then be removed as none of the cache's.
func TestLinkedCache(t *testing.T) {
	d, key := open(t), KeyOf("c")
	elsewhere := t.TempDir()
	must(t, os.WriteFile(filepath.Join(elsewhere, "precious"), nil, 0o600))
	must(t, d.add(KeyOf("other"), "text", ""))
	index, err := os.ReadFile(d.index(KeyOf("other")))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(elsewhere, indexName), index, 0o600))
	must(t, os.WriteFile(filepath.Join(elsewhere, layerHex("text")), []byte("text"), 0o600))
	must(t, os.Symlink(elsewhere, filepath.Join(d.path, string(key))))
	_, chain := d.texts(t, KeyOf("other"))

	if _, err := d.Take(key); !errors.Is(err, ErrDamaged) {
		t.Errorf("taken: %v", err)
	}
	if err := d.Touch(key, chain); !errors.Is(err, ErrDamaged) {
		t.Errorf("touched: %v", err)
	}
	if err := d.add(key, "more", chain); !errors.Is(err, ErrDamaged) {
		t.Errorf("added to: %v", err)
	}
	must(t, d.add(key, "new", "")) // takes its place
	d.want(t, key, "new")
	entries, err := os.ReadDir(elsewhere)
	must(t, err)
	after, err := os.ReadFile(filepath.Join(elsewhere, indexName))
	must(t, err)
	if len(entries) != 3 || string(after) != string(index) {
		t.Errorf("changed elsewhere: %v, %s", entries, after)
	}
}
