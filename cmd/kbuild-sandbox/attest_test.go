package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// The provenance tells of kept cache mounts that were there before the build, of
// those that are only there at its end, and of no others.
func TestAttesterTellsCaches(t *testing.T) {
	dir := t.TempDir()
	if (&attester{}).build(sandbox.Built{}).Caches {
		t.Error("without a directory")
	}
	before := &attester{keep: sandbox.Caches{Dir: dir}}
	if before.build(sandbox.Built{}).Caches {
		t.Error("in an empty directory")
	}
	if err := os.MkdirAll(filepath.Join(dir, "mounts", "0123"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !before.build(sandbox.Built{}).Caches {
		t.Error("one that came meanwhile is not told")
	}
	pruned := &attester{keep: sandbox.Caches{Dir: t.TempDir()}, filled: true}
	if !pruned.build(sandbox.Built{}).Caches {
		t.Error("one that was there and went is not told")
	}
}
