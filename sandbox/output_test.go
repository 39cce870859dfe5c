package sandbox

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLayout(t *testing.T) {
	j := newJob(t, "layout")
	j.Layout = filepath.Join(j.Base, "new", "out")
	for range 2 { // the second time over the first
		if _, _, err := run(t, j, nil); err != nil {
			t.Fatal(err)
		}
		checkLayout(t, j.Layout)
	}
}

// checkLayout checks what the guest's layout becomes.
func checkLayout(t *testing.T, dir string) {
	t.Helper()
	big := bytes.Repeat([]byte("layer "), 1<<20)
	want := []string{"blobs", "blobs/sha256", "index.json", "oci-layout"}
	for _, b := range [][]byte{[]byte("config"), big} {
		name := filepath.Join("blobs", "sha256", fmt.Sprintf("%x", sha256.Sum256(b)))
		want = append(want, name)
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	var have []string
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if p != dir {
			have = append(have, strings.TrimPrefix(p, dir+"/"))
		}
		return err
	})
	slices.Sort(want)
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("files %q, want %q (%v)", have, want, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || string(got) != `{"schemaVersion":2}` {
		t.Errorf("index.json %q, %v", got, err)
	}
}

func TestTar(t *testing.T) {
	j := newJob(t, "tar")
	j.Tar = filepath.Join(j.Base, "new", "image.tar")
	if _, _, err := run(t, j, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(j.Tar)
	if err != nil || info.Size() != 1<<20 || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	entries, err := os.ReadDir(filepath.Dir(j.Tar))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// Nothing appears, and what stood there stays, when the build fails after its
// outputs came, or its end is missing.
func TestOutputsOfFailure(t *testing.T) {
	for _, act := range []string{"tar fail", "tar exit", "layout fail", "layout exit"} {
		j := newJob(t, act)
		old := filepath.Join(j.Base, "old")
		if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(act, "tar") {
			j.Tar = old
		} else {
			j.Layout = filepath.Join(j.Base, "out")
		}
		res, _, err := run(t, j, nil)
		if err == nil && res.Failure == nil {
			t.Errorf("%s: succeeded", act)
		}
		entries, err := os.ReadDir(j.Base)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if want := []string{"ctx", "old", "w"}; !slices.Equal(names, want) {
			t.Errorf("%s: left %q, want %q", act, names, want)
		}
		if b, err := os.ReadFile(old); err != nil || string(b) != "old" {
			t.Errorf("%s: the old file is %q, %v", act, b, err)
		}
	}
}

func TestOutputsThatCannotBe(t *testing.T) {
	j := newJob(t, "ok")
	j.Tar = "/dev/null"
	if _, _, err := run(t, j, nil); err == nil || !strings.Contains(err.Error(), "/dev/null is not a regular file") {
		t.Errorf("error %v", err)
	}
	j.Tar, j.Layout = "", "/proc/nowhere/out"
	if _, _, err := run(t, j, nil); err == nil || !strings.Contains(err.Error(), "prepare outputs") {
		t.Errorf("error %v", err)
	}
}

func TestOutputLimit(t *testing.T) {
	j := newJob(t, "layout")
	j.Layout = filepath.Join(j.Base, "out")
	_, _, err := run(t, j, func(c *Config) { c.Outputs.Limit = 1 << 20 })
	if err == nil || !strings.Contains(err.Error(), "a blob of 6291456 bytes, 1048570 are left") {
		t.Errorf("error %v", err)
	}
}
