package whole

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestSweep: what nobody holds is removed, also a directory, and nothing else; the
// directory's name is no pattern.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*")
	linked := filepath.Join(t.TempDir(), "file")
	for _, d := range []string{dir, filepath.Join(dir, ".new-dir")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{linked, filepath.Join(dir, "done"), filepath.Join(dir, ".new-dead")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(linked, filepath.Join(dir, ".new-link")); err != nil {
		t.Fatal(err)
	}
	f, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := Link(linked, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		age  time.Duration
		want int
	}{{time.Hour, 6}, {0, 3}} {
		if err := Sweep(dir, step.age); err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); len(got) != step.want {
			t.Errorf("of age %v: left %q", step.age, got)
		}
	}
	f.Close()
	l.Close()
	if err := Sweep(dir, 0); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != "done" {
		t.Errorf("after their writers: %q", got)
	}
	if _, err := os.Stat(linked); err != nil {
		t.Error(err)
	}
}

// TestAtOnce: writers lose nothing to those who sweep, and readers see whole files.
func TestAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 300 {
				if err := Write(dir, path, []byte("whole")); err != nil {
					t.Error(err)
				}
				if err := Sweep(dir, 0); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(path); err != nil || string(b) != "whole" {
					t.Errorf("%q, %v", b, err)
				}
			}
		})
	}
	all.Wait()
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
}

// TestLocked: one at a time. The race detector knows nothing of files that are locked.
func TestLocked(t *testing.T) {
	dir := t.TempDir()
	var inside atomic.Bool
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				err := Locked(dir, func() error {
					if !inside.CompareAndSwap(false, true) {
						t.Error("two at once")
					}
					runtime.Gosched()
					inside.Store(false)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
