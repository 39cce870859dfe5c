package layerdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func key(n int) string { return fmt.Sprintf("%064x-%064x", n, n) }

// content is an image in the order in which it comes: its first block last.
func content(n int) (whole, sent []byte) {
	whole = bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), 3*firstBlock/8)
	copy(whole, "first block")
	return whole, append(bytes.Clone(whole[firstBlock:]), whole[:firstBlock]...)
}

func open(t *testing.T, path string, limit int64, boot string) *Dir {
	t.Helper()
	d, err := Open(path, limit, boot)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// put writes the n-th image, which is n seconds old.
func put(t *testing.T, d *Dir, n int) *Image {
	t.Helper()
	in, err := d.Create(key(n))
	if err != nil {
		t.Fatal(err)
	}
	_, sent := content(n)
	for len(sent) > 0 {
		k := min(len(sent), 1000)
		if _, err := in.Write(sent[:k]); err != nil {
			t.Fatal(err)
		}
		sent = sent[k:]
	}
	i, _, err := in.Commit("")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Duration(n) * time.Second)
	if err := os.Chtimes(i.Path, at, at); err != nil {
		t.Fatal(err)
	}
	return i
}

func keys(t *testing.T, d *Dir) string {
	t.Helper()
	held, err := d.Hold()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, i := range held {
		list = append(list, strings.TrimLeft(i.Key[:64], "0"))
		i.Close()
	}
	return strings.Join(list, " ")
}

func TestKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "layers")
	d := open(t, path, 1<<20, "boot")
	i := put(t, d, 1)
	if err := i.Use(); err != nil {
		t.Error(err)
	}
	whole, _ := content(1)
	if b, err := os.ReadFile(i.Path); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	i.Close()
	// The same again, from another process: the first one stays.
	again := put(t, open(t, path, 1<<20, "boot"), 1)
	again.Close()
	if got := keys(t, d); got != "1" {
		t.Errorf("images: %s", got)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 3 { // and the lock
		t.Errorf("%v, %v", entries, err)
	}
}

// What was written before the machine last started is checked once.
func TestDamaged(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, 1<<20, "one")
	for n := range 3 {
		put(t, d, n+1).Close()
	}
	if err := os.Chmod(d.file(key(2)), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(d.file(key(2)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 5000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Truncate(d.file(key(3)), firstBlock); err != nil {
		t.Fatal(err)
	}
	d = open(t, path, 1<<20, "two")
	held, err := d.Hold()
	if err != nil || len(held) != 2 {
		t.Fatalf("%d images, %v", len(held), err)
	}
	for _, i := range held {
		err := i.Use()
		if damaged := i.Key == key(2); damaged != errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", i.Key[60:], err)
		}
		i.Close()
	}
	if got := keys(t, d); got != "1" {
		t.Errorf("left: %s", got)
	}
	if b, err := os.ReadFile(d.noteOf(key(1))); err != nil || !strings.Contains(string(b), `"boot":"two"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// Those used longest ago go first, but none that somebody holds.
func TestTrim(t *testing.T) {
	d := open(t, t.TempDir(), 3*3*firstBlock, "boot")
	for n := 1; n <= 5; n++ {
		put(t, d, n).Close()
	}
	held, err := d.open(key(5))
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Trim()
	if err != nil || r.Layers != 1 || r.Bytes != 3*firstBlock {
		t.Errorf("%+v, %v", r, err)
	}
	if got := keys(t, d); got != "1 2 3 5" {
		t.Errorf("left: %s", got)
	}
	held.Close()
	r, err = Prune(d.path, time.Now().Add(-2500*time.Millisecond))
	if err != nil || r.Layers != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := keys(t, d); got != "1 2" {
		t.Errorf("left: %s", got)
	}
	if r, err := Prune(d.path, time.Time{}); err != nil || r.Layers != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if entries, err := os.ReadDir(d.path); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestRefused(t *testing.T) {
	d := open(t, t.TempDir(), 1<<20, "boot")
	if in, err := d.Create(""); err != nil {
		t.Error(err)
	} else if _, _, err := in.Commit("x"); !errors.Is(err, ErrForm) {
		t.Errorf("committed: %v", err)
	}
	for _, k := range []string{"../x", key(1)[1:], key(1) + "\n", strings.ToUpper(key(0xa))} {
		if _, err := d.Create(k); !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, size := range []int{0, firstBlock, 2*firstBlock + 1} {
		in, err := d.Create(key(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.Commit(""); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	// A link is no image, whatever it leads to.
	i := put(t, d, 1)
	i.Close()
	if err := os.Rename(i.Path, i.Path+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(i.Path+"x", i.Path); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, d); got != "" {
		t.Errorf("a link counts: %s", got)
	}
}

// TestDead: what a writer left that died is removed, and nothing of a living one; so
// is a note whose image never came.
func TestDead(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "[a-z]"), 1<<20, "boot")
	in, err := d.Create(key(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, living := range []bool{true, false} {
		if err := d.write(key(3), note{}); err != nil {
			t.Fatal(err)
		}
		open(t, d.path, 1, "boot")
		if _, err := os.Stat(in.file.Name()); (err == nil) != living {
			t.Errorf("living %v: %v", living, err)
		}
		if _, err := os.Stat(d.noteOf(key(3))); err == nil {
			t.Error("a note of nothing stays")
		}
		in.file.Close()
	}
}

// TestNotOurs: an image that somebody has copied, or put in the place of another, is
// checked before its use, whatever its note says.
func TestNotOurs(t *testing.T) {
	d := open(t, t.TempDir(), 1<<20, "boot")
	for n := range 2 {
		i := put(t, d, n)
		whole, _ := content(n)
		if n == 1 {
			whole[5000] ^= 1
		}
		i.Close()
		if err := errors.Join(os.WriteFile(i.Path+".copy", whole, 0o400), os.Rename(i.Path+".copy", i.Path)); err != nil {
			t.Fatal(err)
		}
		i, err := d.Open(key(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Use(); (n == 1) != errors.Is(err, errDamaged) {
			t.Errorf("image %d: %v", n, err)
		}
	}
	// A damaged one does not keep a whole one from coming.
	for _, boot := range []string{"boot", "another"} {
		i := put(t, d, 1)
		i.Close()
		f, err := os.OpenFile(i.Path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(make([]byte, 100), 5000)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		d.boot = "third" + boot
		i = put(t, d, 1)
		if err := i.Use(); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(i.Path); !slices.Equal(got, first(content(1))) {
			t.Error("the damaged one is there")
		}
		i.Close()
	}
}

func first(whole, _ []byte) []byte { return whole }

// TestNotes: notes of steps and builds count, and go with what is old.
func TestNotes(t *testing.T) {
	d := open(t, t.TempDir(), 3*3*firstBlock, "boot")
	for n := range 20 {
		name := fmt.Sprintf("%064x", n)
		if err := errors.Join(d.PutStep(name, []byte("{}")), d.Remember(name, nil)); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(n) * time.Minute)
		for _, suffix := range []string{stepSuffix, recallSuffix} {
			if err := os.Chtimes(filepath.Join(d.path, name+suffix), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := d.Trim(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{stepSuffix, recallSuffix} {
		if left, err := filepath.Glob(filepath.Join(d.path, "*"+suffix)); err != nil || len(left) < 4 || len(left) > 5 {
			t.Errorf("left %d of %s, %v", len(left), suffix, err)
		}
	}
	if _, err := Prune(d.path, time.Now().Add(-90*time.Second)); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(d.path, "*[pt]")); err != nil || len(left) != 4 {
		t.Errorf("left %q, %v", left, err)
	}
}

// TestRecall: what was noted comes back until all is removed; a name or a file that
// is none is nothing.
func TestRecall(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, 1<<30, "boot")
	name := strings.Repeat("a", 64)
	if got := d.Recall(name); got != nil {
		t.Errorf("recalled %q of nothing", got)
	}
	for _, want := range [][]string{{key(1), key(2)}, {key(3)}} {
		if err := d.Remember(name, want); err != nil {
			t.Fatal(err)
		}
		if got := d.Recall(name); !slices.Equal(got, want) {
			t.Errorf("recalled %q, want %q", got, want)
		}
	}
	if err := d.Remember("../../x", nil); err != nil || d.Recall("../../x") != nil {
		t.Errorf("a bad name: %v", err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 2 {
		t.Errorf("there are %v", entries)
	}
	if err := os.WriteFile(filepath.Join(path, name+recallSuffix), []byte(`{"no": "list"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.Recall(name); got != nil {
		t.Errorf("recalled %q of a damaged file", got)
	}
	if _, err := Prune(path, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 1 { // the lock
		t.Errorf("left: %v", entries)
	}
}

// TestSteps: notes of steps and blobs come back, and go when all is pruned.
func TestSteps(t *testing.T) {
	path, file := t.TempDir(), filepath.Join(t.TempDir(), "blob")
	d := open(t, path, 1<<30, "boot")
	if err := os.WriteFile(file, []byte("blob"), 0o444); err != nil {
		t.Fatal(err)
	}
	const digest = "sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8"
	for range 2 { // the second time it is there
		if err := d.Adopt(digest, file, nil); err != nil {
			t.Fatal(err)
		}
	}
	i, err := d.Open(BlobKey(digest))
	if err != nil || i.Size() != 4 {
		t.Fatalf("%+v, %v", i, err)
	}
	again := open(t, path, 1<<30, "another boot")
	if j, err := again.Open(BlobKey(digest)); err != nil || j.Use() != nil {
		t.Errorf("after a start: %v", err)
	} else {
		j.Close()
	}
	name := strings.Repeat("b", 64)
	if b, err := d.Step(name); b != nil || err != nil {
		t.Errorf("a step: %q, %v", b, err)
	}
	if err := d.PutStep(name, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Step(name); string(b) != "{}" || err != nil {
		t.Errorf("a step: %q, %v", b, err)
	}
	if err := d.PutStep("../x", nil); !errors.Is(err, ErrForm) {
		t.Error(err)
	}
	if r, err := Prune(path, time.Time{}); err != nil || r.Layers != 0 {
		t.Errorf("pruned what is held: %+v, %v", r, err)
	}
	i.Close()
	if r, err := Prune(path, time.Time{}); err != nil || r.Layers != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 1 { // the lock
		t.Errorf("left: %v", entries)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "blob" {
		t.Errorf("the file itself: %q, %v", b, err)
	}
	// One that is damaged is found out after the machine has started again.
	if err := d.Adopt(strings.Replace(digest, "fa", "fb", 1), file, nil); err != nil {
		t.Fatal(err)
	}
	j, err := again.Open(BlobKey(strings.Replace(digest, "fa", "fb", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Use(); !errors.Is(err, errDamaged) {
		t.Errorf("a damaged blob: %v", err)
	}
}
