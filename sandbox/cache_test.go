package sandbox

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
)

// cacheLimit is that of the tests, in bytes.
const cacheLimit = 1 << 20

// guestKey is the key that the guest uses.
var guestKey = strings.Repeat("a", 64)

func sum(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// withCaches runs the guest with a cache directory.
func withCaches(t *testing.T, dir, act string) (texts []string, err error) {
	t.Helper()
	j := newJob(t, act)
	_, texts, err = run(t, j, func(c *Config) { c.Caches = Caches{Dir: dir, Limit: cacheLimit} })
	return texts, err
}

// cacheFiles are the names of all that is in a cache directory but locks.
func cacheFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %o", path, info.Mode())
			}
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCachesAreKept(t *testing.T) {
	for _, end := range []string{"", "fail", "exit"} {
		dir := filepath.Join(t.TempDir(), "not", "yet", "there")
		if texts, err := withCaches(t, dir, "cache keep "+end); (err != nil) != (end == "exit") {
			t.Fatalf("%v, %q", err, texts)
		}
		// The second is as large as all may be, so the first had to go.
		want := []string{"index.json", fmt.Sprintf("%x", sum([]byte(strings.Repeat("l", 1<<20))))}
		got := cacheFiles(t, dir)
		slices.Sort(got)
		for i, name := range want {
			want[i] = filepath.Join("mounts", strings.Repeat("b", 64), name)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", end, got, want)
		}
	}
}

func TestCachesFromInside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if _, err := withCaches(t, dir, "cache on "); err == nil {
		t.Fatal("no base")
	}
	mounts, err := cachedir.Open(filepath.Join(dir, "mounts"), cacheLimit, 0)
	if err != nil {
		t.Fatal(err)
	}
	in, err := mounts.Create(cachedir.Key(guestKey), cachedir.Layer{Digest: "sha256:" + fmt.Sprintf("%x", sum([]byte("x"))), Size: 1})
	if err == nil {
		if _, err = in.Write([]byte("x")); err == nil {
			err = in.Commit("")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	texts, err := withCaches(t, dir, "cache look")
	all := strings.Join(texts, "\n")
	for _, want := range []string{`caches "/caches", 1048576 bytes`, "1 bytes in " + fmt.Sprintf("%x", sum([]byte("x"))), "write: true true"} {
		if err != nil || !strings.Contains(all, want) {
			t.Errorf("no %q in %s (%v)", want, all, err)
		}
	}
	s, err := mounts.Take(cachedir.Key(guestKey))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for act, layers := range map[string]int{"on sha256:" + strings.Repeat("0", 64): 1, "touch " + s.Chain(): 1, "on " + s.Chain(): 2} {
		texts, err := withCaches(t, dir, "cache "+act)
		if now, e := mounts.Take(cachedir.Key(guestKey)); e != nil || err != nil || len(now.Layers) < layers || now.Used.Equal(s.Used) && !strings.Contains(act, "00000") {
			t.Errorf("%s: %+v, %v, %v, %q", act, now, e, err, texts)
		}
	}
}

// TestHostileCaches: what no executor of ours does ends the build, and nothing is
// kept or left.
func TestHostileCaches(t *testing.T) {
	for act, want := range map[string]string{
		"name":       `malformed: key "../../aaaa`,
		"base":       `cache mount on "../x"`,
		"digest":     "malformed: 1 bytes with digest",
		"nodigest":   `malformed: digest ""`,
		"large":      "larger than all cache mounts together may be",
		"more":       "more than 1 bytes",
		"less":       "1 bytes with digest",
		"touchbytes": "more than 0 bytes",
		"many":       "more than 1000 cache mounts",
		"half":       "not complete",
	} {
		dir := filepath.Join(t.TempDir(), "c")
		_, err := withCaches(t, dir, "cache "+act)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), "output refused") || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", act, err)
		}
		if left := cacheFiles(t, dir); len(left) > 0 {
			t.Errorf("%s: left %q", act, left)
		}
	}
	j := newJob(t, "cache keep")
	if _, _, err := run(t, j, nil); err == nil || !strings.Contains(err.Error(), `"cache" was not asked for`) {
		t.Errorf("without a cache directory: %v", err)
	}
}

// TestCachesOnFullDisk: the build goes on without.
func TestCachesOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=257m,mode=0700"); err != nil {
		t.Skip("cannot mount:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<19), 0o600); err != nil {
		t.Fatal(err)
	}
	texts, err := withCaches(t, dir, "cache keep")
	if all := strings.Join(texts, "\n"); err != nil || !strings.Contains(all, "a cache mount is not kept: ") || !strings.Contains(all, "no space left on device") {
		t.Errorf("%v, %q", err, all)
	}
	if left := cacheFiles(t, filepath.Join(dir, "mounts")); len(left) != 2 {
		t.Errorf("%q", left) // the small one is there
	}
}

func TestCacheDirectories(t *testing.T) {
	base := t.TempDir()
	mk := func(name string, mode os.FileMode) string {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	foreign := mk("foreign", 0o755)
	if err := os.Chown(foreign, 4711, 4711); err != nil {
		t.Skip("not root:", err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inner := mk("inner", 0o700)
	if err := os.Mkdir(filepath.Join(inner, "mounts"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(inner, "mounts"), 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		mk("shared", 0o777): "can be written by others", mk("group", 0o770): "can be written by others",
		inner: "can be written by others", foreign: "belongs to user 4711", file: "not a directory",
		"/proc/nowhere": "no such file", mk("readable", 0o755): "", mk("own", 0o700): "",
	} {
		_, err := withCaches(t, dir, "ok")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
		j := newJob(t, "ok")
		_, texts, err := run(t, j, func(c *Config) { c.Caches = Caches{Dir: dir, Limit: cacheLimit, Optional: true} })
		if told := strings.Contains(strings.Join(texts, "\n"), want); err != nil || !told {
			t.Errorf("%s, optional: %v, %q", dir, err, texts)
		}
		if want == "" || strings.Contains(want, "no ") || strings.HasPrefix(want, "not") {
			continue
		}
		if _, err := PruneCaches(dir, time.Time{}); err == nil {
			t.Errorf("%s: pruned", dir)
		}
	}
	// What is called so where we are is nobody's cache.
	here := t.TempDir()
	t.Chdir(here)
	mine := filepath.Join(here, "hashes", strings.Repeat("0", 64))
	do(t, os.Mkdir(filepath.Dir(mine), 0o700), os.WriteFile(mine, nil, 0o600))
	if r, err := PruneCaches(filepath.Join(base, "nowhere"), time.Time{}); err != nil || r != (Removed{}) {
		t.Errorf("removed %+v, error %v", r, err)
	}
	_, err := os.Stat(mine)
	do(t, err)
}

// TestPruneFollowsNoLink: a checkout's cache directory may have one in it.
func TestPruneFollowsNoLink(t *testing.T) {
	elsewhere, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(elsewhere, strings.Repeat("a", 64))
	if err := os.Mkdir(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "mounts")); err != nil {
		t.Fatal(err)
	}
	if _, err := PruneCaches(dir, time.Time{}); err == nil || !strings.Contains(err.Error(), "mounts is not a directory") {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
