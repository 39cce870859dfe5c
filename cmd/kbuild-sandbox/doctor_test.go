package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A work directory that a build would make is looked at where it will lie, and is
// not left behind.
func TestRoom(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		top:                          top + ", ",
		filepath.Join(top, "a", "b"): "a/b (a build makes it), ",
		filepath.Join(file, "a"):     "not a directory",
	} {
		if f := room(dir); !strings.Contains(f.found, want) || (f.status() == "MISSING") != strings.HasPrefix(dir, file) {
			t.Errorf("%s: %+v, want %q", dir, f, want)
		}
	}
	list := unmade(filepath.Join(top, "a", "b"))
	if want := []string{filepath.Join(top, "a", "b"), filepath.Join(top, "a")}; !slices.Equal(list, want) {
		t.Fatalf("unmade %q", list)
	}
	if err := os.MkdirAll(filepath.Join(top, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	removeEmpty(list)
	if entries, _ := os.ReadDir(top); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}
