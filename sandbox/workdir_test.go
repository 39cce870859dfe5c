package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openHere(t *testing.T, base string) *workdir {
	t.Helper()
	w, err := openWorkdir(t.Context(), base, func(s string) { t.Errorf("warning: %s", s) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// The sweep takes what is dead and ours, and nothing else.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	mk := func(name string, mode os.FileMode, lock bool) string {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if lock {
			if err := os.WriteFile(filepath.Join(dir, lockName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	old := func(dir string) string {
		when := time.Now().Add(-2 * staleNew)
		if err := os.Chtimes(dir, when, when); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	alive := openHere(t, base)
	defer alive.remove(context.Background())
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(base, dirPrefix+"6")); err != nil {
		t.Fatal(err)
	}
	stays := []string{
		alive.dir, mk("other-1", 0o700, true), mk(dirPrefix+"5", 0o755, true),
		mk(dirPrefix+"3"+newSuffix, 0o700, false), elsewhere,
		// A person's own.
		old(mk(dirPrefix+"clone", 0o700, true)), old(mk(dirPrefix+"Xa7d", 0o700, false)), mk(dirPrefix+"7", 0o700, false),
	}
	if err := os.WriteFile(filepath.Join(base, dirPrefix+"7", "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old(filepath.Join(base, dirPrefix+"7"))
	goes := []string{
		mk(dirPrefix+"1", 0o700, true), old(mk(dirPrefix+"2"+newSuffix, 0o700, false)), old(mk(dirPrefix+"8", 0o700, false)),
	}
	for _, name := range []string{dirPrefix + "9", dirPrefix + "10" + newSuffix} { // its launcher died a moment ago
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		goes = append(goes, dir)
	}
	if os.Geteuid() == 0 {
		foreign := mk(dirPrefix+"4", 0o700, true)
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		stays = append(stays, foreign)
	}
	if err := sweep(t.Context(), base); err != nil {
		t.Error(err)
	}
	for _, dir := range stays {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("is gone: %v", err)
		}
	}
	for _, dir := range goes {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// The journal of a dead launcher removes temporary outputs and empty
// directories, and nothing that is complete.
func TestSweepOutputs(t *testing.T) {
	base, out := t.TempDir(), t.TempDir()
	w := openHere(t, base)
	c := Outputs{LayoutDir: filepath.Join(out, "new", "layout"), TarPath: filepath.Join(out, "tars", "x.tar")}
	if _, err := openOutputs(c, w.dir, nil); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(out, "tars", "finished.tar")
	if err := os.WriteFile(done, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.lock.Close() // as its death does
	openHere(t, base).remove(t.Context())
	if _, err := os.Stat(filepath.Join(out, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(out, "tars"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestParallelRuns(t *testing.T) {
	base := t.TempDir()
	one, two := openHere(t, base), openHere(t, base)
	if one.dir == two.dir {
		t.Fatal("one directory for two")
	}
	for _, w := range []*workdir{one, two} {
		if _, err := os.Stat(w.dir); err != nil {
			t.Error(err)
		}
		if err := w.remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestLockGoesLast: a launcher that dies while it removes its directory leaves one
// that has its lock still, or nothing else in it.
func TestLockGoesLast(t *testing.T) {
	w := openHere(t, t.TempDir())
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(w.dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, w.dir, unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	if err := w.remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16<<10)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	var gone []string
	for rest := b[:n]; len(rest) > 0; {
		size := int(binary.NativeEndian.Uint32(rest[12:]))
		if name := unix.ByteSliceToString(rest[unix.SizeofInotifyEvent:][:size]); name != "" {
			gone = append(gone, name)
		}
		rest = rest[unix.SizeofInotifyEvent+size:]
	}
	if len(gone) != 21 || gone[20] != lockName {
		t.Errorf("removed in this order: %q", gone)
	}
}

func TestUnescapeMount(t *testing.T) {
	if got := unescapeMount(`/a\040b\134c\012`); got != "/a b\\c\n" {
		t.Errorf("%q", got)
	}
}

// TestStartsAtOnce: those who sweep do not take what another start has not locked yet
// from under it.
func TestStartsAtOnce(t *testing.T) {
	base := t.TempDir()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				w, err := openWorkdir(t.Context(), base, func(string) {})
				if err != nil {
					t.Error(err)
					return
				}
				if err := w.remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
