package hashes

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fileOf writes a file, last changed an hour ago as its mtime says, and returns what
// the kernel says of it.
func fileOf(t *testing.T, path, content string) *unix.Stat_t {
	t.Helper()
	long := time.Now().Add(-time.Hour)
	do(t, os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, long, long))
	return stat(t, path)
}

func stat(t *testing.T, path string) *unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	do(t, unix.Lstat(path, &st))
	return &st
}

// later is when a file that has just been written may be believed.
func later() time.Time { return time.Now().Add(racy + time.Second) }

// TestRemembers: what was learned is known again, in the next build too, until the file
// changes, however well that is hidden.
func TestRemembers(t *testing.T) {
	cache, path := t.TempDir(), filepath.Join(t.TempDir(), "f")
	st, sum := fileOf(t, path, "1"), sha256.Sum256([]byte("1"))
	c := Open(cache, "/context")
	c.Learn(st, later(), sum)
	do(t, c.Save())
	if got, ok := Open(cache, "/context").Known(stat(t, path)); !ok || got != sum {
		t.Errorf("%x, %v", got, ok)
	}
	if _, ok := Open(cache, "/other").Known(stat(t, path)); ok {
		t.Error("another context knows it")
	}
	time.Sleep(20 * time.Millisecond) // ctimes have a grain
	fileOf(t, path, "2")
	do(t, os.Chtimes(path, time.Time{}, time.Unix(0, st.Mtim.Nano())))
	now := stat(t, path)
	if now.Size != st.Size || now.Mtim != st.Mtim || now.Ino != st.Ino {
		t.Fatal("it does not look the same")
	}
	if _, ok := Open(cache, "/context").Known(now); ok {
		t.Error("a changed file of the same size and mtime is taken for the same")
	}
}

// TestRacilyClean: a file that has just changed may change again and look the same.
func TestRacilyClean(t *testing.T) {
	c := Open(t.TempDir(), "/context")
	path := filepath.Join(t.TempDir(), "f")
	for name, tt := range map[string]struct {
		st   *unix.Stat_t
		from time.Time
	}{
		"just written":                     {fileOf(t, path, "1"), time.Now()},
		"read for longer than it is clean": {fileOf(t, path, "1"), time.Now().Add(racy / 2)},
		"of the future": {func() *unix.Stat_t {
			do(t, os.Chtimes(path, time.Time{}, later().Add(time.Hour)))
			return stat(t, path)
		}(), later()},
	} {
		c.Learn(tt.st, tt.from, sha256.Sum256(nil))
		if _, ok := c.Known(tt.st); ok {
			t.Errorf("%s: it is trusted", name)
		}
	}
}

// TestDamaged: what is not as it was written counts as empty, and is written anew.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	st, sum := fileOf(t, path, "1"), sha256.Sum256([]byte("1"))
	for name, damage := range map[string]func(file string, b []byte) error{
		"a bit":      func(file string, b []byte) error { b[len(form)+50] ^= 1; return os.WriteFile(file, b, 0o600) },
		"its end":    func(file string, b []byte) error { return os.WriteFile(file, b[:len(b)-1], 0o600) },
		"nothing":    func(file string, _ []byte) error { return os.WriteFile(file, nil, 0o600) },
		"other form": func(file string, b []byte) error { return os.WriteFile(file, append([]byte("x"), b...), 0o600) },
		"a FIFO": func(file string, _ []byte) error {
			do(t, os.Remove(file))
			return unix.Mkfifo(file, 0o600)
		},
		"a link": func(file string, _ []byte) error {
			do(t, os.Rename(file, file+"0"))
			return os.Symlink(file+"0", file)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := Open(t.TempDir(), "/context")
			c.Learn(st, later(), sum)
			do(t, c.Save())
			b, err := os.ReadFile(c.path)
			do(t, err, damage(c.path, b))
			again := Open(filepath.Dir(c.path), "/context")
			if _, ok := again.Known(st); ok {
				t.Error("it is believed")
			}
			again.Learn(st, later(), sum)
			do(t, again.Save())
			if got, ok := Open(filepath.Dir(c.path), "/context").Known(st); !ok || got != sum {
				t.Error("it is not written anew")
			}
		})
	}
}

// TestTogether: builds at the same time leave something whole.
func TestTogether(t *testing.T) {
	cache, path := t.TempDir(), filepath.Join(t.TempDir(), "f")
	st, sum := fileOf(t, path, "1"), sha256.Sum256([]byte("1"))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			c := Open(cache, "/context")
			c.Learn(st, later(), sum)
			if err := c.Save(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, ok := Open(cache, "/context").Known(st); !ok || got != sum {
		t.Error("nothing is known")
	}
	entries, err := os.ReadDir(cache)
	if do(t, err); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestBounds: there are no more contexts than may be, and those used last stay.
func TestBounds(t *testing.T) {
	cache, path := t.TempDir(), filepath.Join(t.TempDir(), "f")
	st := fileOf(t, path, "1")
	do(t, os.WriteFile(filepath.Join(cache, ".new-1"), nil, 0o600)) // of a writer that died
	for i := range mostContexts + 10 {
		c := Open(cache, fmt.Sprint(i))
		c.Learn(st, later(), sha256.Sum256(nil))
		do(t, c.Save())
	}
	entries, err := os.ReadDir(cache)
	if do(t, err); len(entries) != mostContexts {
		t.Errorf("%d files", len(entries))
	}
	if _, ok := Open(cache, fmt.Sprint(mostContexts+9)).Known(st); !ok {
		t.Error("the last one is gone")
	}
	if n, err := Prune(cache, time.Now().Add(-time.Minute)); n != 0 || err != nil {
		t.Errorf("pruned %d bytes of what was just used: %v", n, err)
	}
	list, err := List(cache)
	if do(t, err); len(list) != mostContexts || list[0].Size == 0 || list[0].Used.Before(list[1].Used) {
		t.Errorf("%d contexts, the first two are %v", len(list), list[:min(len(list), 2)])
	}
	if n, err := Prune(cache, time.Time{}); n == 0 || err != nil {
		t.Errorf("pruned %d bytes of all: %v", n, err)
	}
	other := filepath.Join(cache, "other")
	do(t, os.WriteFile(other, nil, 0o600))
	if _, err := Prune(cache, time.Time{}); err != nil {
		t.Error(err)
	}
	stat(t, other) // it is not ours
}
