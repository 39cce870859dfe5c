package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What may lie in a cache directory (the rooms' doc.go), by whole names.
var (
	imageForm = regexp.MustCompile(`^((step-)?[0-9a-f]{64}-[0-9a-f]{64})\.erofs$|^(blob-[0-9a-f]{64})\.blob$`)
	noteForm  = regexp.MustCompile(`^((?:step-)?[0-9a-f]{64}-[0-9a-f]{64}|blob-[0-9a-f]{64})\.json$`)
	smallForm = regexp.MustCompile(`^[0-9a-f]{64}\.(step|last)$`)
)

// verify looks at all that lies in the cache directory while nobody uses it, with
// eyes that are not the product's: it knows no more than what the form is.
func (c *crash) verify() {
	c.Helper()
	verifyLayers(c.T, filepath.Join(c.cache(), "layers"), crashLimit)
	verifyMounts(c.T, filepath.Join(c.cache(), "mounts"), crashLimit)
}

func verifyLayers(t *testing.T, dir string, limit int64) {
	t.Helper()
	var bytes int64
	images, notes := map[string]bool{}, map[string]bool{}
	for _, e := range entries(t, dir) {
		path := filepath.Join(dir, e.Name())
		unlocked(t, path)
		if m := imageForm.FindStringSubmatch(e.Name()); m != nil {
			key := m[1] + m[3]
			images[key] = true
			bytes += verifyImage(t, path, filepath.Join(dir, key+".json"))
		} else if m := noteForm.FindStringSubmatch(e.Name()); m != nil {
			notes[m[1]] = true
		} else if e.Name() == "lock" {
			continue
		} else if !smallForm.MatchString(e.Name()) {
			t.Errorf("%s lies in the cache", e.Name())
		} else if b, err := os.ReadFile(path); err != nil || !json.Valid(b) {
			t.Errorf("%s: %q, %v", e.Name(), b, err)
		}
	}
	for key := range notes {
		if !images[key] {
			t.Errorf("a note of %s, which is not there", key)
		}
	}
	if bytes > limit {
		t.Errorf("layers have %d bytes, more than %d", bytes, limit)
	}
	if len(images) == 0 {
		t.Error("the cache is empty")
	}
}

// verifyImage compares an image or a blob with its note. An image's first block has
// come, and was hashed, last.
func verifyImage(t *testing.T, path, note string) int64 {
	t.Helper()
	var want struct {
		Size   int64
		SHA256 string
	}
	b, err := os.ReadFile(note)
	if err == nil {
		err = json.Unmarshal(b, &want)
	}
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(note), err)
		return 0
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	first := 0
	if strings.HasSuffix(path, ".erofs") {
		first = min(4096, len(whole))
		if out, err := exec.Command("fsck.erofs", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(path), err, out)
		}
	}
	sum := sha256.New()
	sum.Write(whole[first:])
	sum.Write(whole[:first])
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.SHA256 || int64(len(whole)) != want.Size {
		t.Errorf("%s: %d bytes with digest %s, its note says %d with %s", filepath.Base(path), len(whole), got, want.Size, want.SHA256)
	}
	return int64(len(whole))
}

// verifyMounts looks at kept cache mounts: every layer of every index is whole, and
// there is nothing else.
func verifyMounts(t *testing.T, dir string, limit int64) {
	t.Helper()
	var bytes int64
	for _, e := range entries(t, dir) {
		if !e.IsDir() {
			if unlocked(t, filepath.Join(dir, e.Name())); e.Name() != "lock" {
				t.Errorf("%s lies among the cache mounts", e.Name())
			}
			continue
		}
		var index struct {
			Layers []struct {
				Digest string
				Size   int64
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "index.json"))
		if err == nil {
			err = json.Unmarshal(b, &index)
		}
		if err != nil {
			t.Error(err)
		}
		there := map[string]bool{"index.json": true}
		for _, l := range index.Layers {
			name := strings.TrimPrefix(l.Digest, "sha256:")
			there[name] = true
			whole, err := os.ReadFile(filepath.Join(dir, e.Name(), name))
			sum := sha256.Sum256(whole)
			if err != nil || hex.EncodeToString(sum[:]) != name || int64(len(whole)) != l.Size {
				t.Errorf("cache mount %s: layer %s: %d bytes with digest %x, %v", e.Name(), name, len(whole), sum, err)
			}
			bytes += l.Size
		}
		for _, f := range entries(t, filepath.Join(dir, e.Name())) {
			if !there[f.Name()] {
				t.Errorf("cache mount %s has %s", e.Name(), f.Name())
			}
		}
	}
	if bytes > limit {
		t.Errorf("cache mounts have %d bytes, more than %d", bytes, limit)
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	return list
}

// unlocked fails if somebody holds a lock on a file.
func unlocked(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("%s is held: %v", filepath.Base(path), err)
	}
}
