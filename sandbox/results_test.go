package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// resultsBuild is a build whose results go to two layouts: one that grows, one that does
// not. It hands out one result under a key.
func resultsBuild(t *testing.T, targets []request.CacheTarget, dirs ...string) (*build, *strings.Builder) {
	t.Helper()
	home := t.TempDir()
	s, err := openStore(filepath.Join(home, "store"))
	if err != nil {
		t.Fatal(err)
	}
	told := &strings.Builder{}
	b := &build{store: s, home: homeOf(home)}
	b.c.Request.CacheTo, b.c.CacheTo = targets, dirs
	b.c.Sink = sinkFunc(func(e request.Event) { told.WriteString(e.Text + "\n") })
	return b, told
}

func (b *build) handOut(t *testing.T, name, key string) {
	t.Helper()
	digest, err := b.store.put([]byte("result " + key))
	if err != nil {
		t.Fatal(err)
	}
	in := &intake{role: request.RoleBuild, store: b.store, kept: b.kept, open: map[uint32]incoming{}}
	index := `{"schemaVersion":2,"manifests":[{"digest":"` + digest + `","annotations":{"` + request.ResultKey + `":"` + key + `"}}]}`
	for _, err := range []error{
		in.begin(request.Output{Kind: request.OutputKeep, Name: name, Digest: digest}),
		in.begin(request.Output{Kind: request.OutputIndex, Name: name, Stream: 1}), in.write(1, []byte(index)), in.end(request.OutputEnd{Stream: 1}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestResultLayouts: results go to layouts, whose old results stay if they are to.
func TestResultLayouts(t *testing.T) {
	grows, renewed := filepath.Join(t.TempDir(), "new/l"), filepath.Join(t.TempDir(), "l")
	layout := request.CachePlace{Layout: "/l", Called: "l"}
	targets := []request.CacheTarget{{}, {CachePlace: layout, Others: true, Merge: true}, {CachePlace: layout, Others: true}}
	for _, key := range []string{"a", "b"} {
		b, told := resultsBuild(t, targets, "", grows, renewed)
		if err := b.openResults(); err != nil {
			t.Fatal(err)
		}
		b.handOut(t, "1", key)
		b.handOut(t, "2", key)
		for _, name := range []string{"0", "3", "x", "../1"} {
			in := &intake{role: request.RoleBuild, store: b.store, kept: b.kept}
			if err := in.begin(request.Output{Kind: request.OutputIndex, Name: name}); !errors.Is(err, errOutput) {
				t.Errorf("layout %s: %v", name, err)
			}
			if err := in.begin(request.Output{Kind: request.OutputKeep, Name: name}); !errors.Is(err, errOutput) {
				t.Errorf("layout %s: %v", name, err)
			}
		}
		if err := b.commitResults(); err != nil || told.Len() > 0 {
			t.Fatal(err, told)
		}
		b.discardResults()
	}
	for dir, both := range map[string]bool{grows: true, renewed: false} {
		index, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil || strings.Contains(string(index), `"a"`) != both || !strings.Contains(string(index), `"b"`) {
			t.Errorf("%s, %v", index, err)
		}
		blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
		if err != nil || len(blobs) != 2 {
			t.Errorf("%d blobs, %v", len(blobs), err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 3 {
			t.Errorf("%v, %v", left, err)
		}
	}
}

// TestResultsThatCannotBeKept cost a warning, unless they are to be strict.
func TestResultsThatCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	target := request.CacheTarget{CachePlace: request.CachePlace{Layout: "/l", Called: "./l"}, Others: true}
	b, told := resultsBuild(t, []request.CacheTarget{target}, filepath.Join(file, "l"))
	if err := b.openResults(); err != nil || !strings.Contains(told.String(), "cache ./l is not written: ") || !b.c.Request.CacheTo[0].None() || b.pushes() {
		t.Errorf("%v, %s, %+v", err, told, b.c.Request.CacheTo)
	}
	target.Strict = true
	b, _ = resultsBuild(t, []request.CacheTarget{target}, filepath.Join(file, "l"))
	if err := b.openResults(); err == nil {
		t.Error("strict, and no error")
	}
	// Nothing was handed out, and an index that is there is none.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, handsOut := range []bool{false, true} {
		target.Strict, target.Merge = false, true
		b, told = resultsBuild(t, []request.CacheTarget{target}, dir)
		if err := b.openResults(); err != nil {
			t.Fatal(err)
		}
		if handsOut {
			b.handOut(t, "0", "a")
		}
		// Where there are no results, what is there stays, and nothing is to be told.
		if err := b.commitResults(); err != nil || strings.Contains(told.String(), "cache ./l is not written: ") != handsOut {
			t.Errorf("%v, %q", err, told)
		}
		b.discardResults()
		left, err := os.ReadDir(dir)
		if err != nil || handsOut && len(left) == 0 {
			t.Errorf("%v, %v", left, err)
		}
	}
}

// TestResultsBesideAPipe: what is no file is not waited for.
func TestResultsBesideAPipe(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "index.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	target := request.CacheTarget{CachePlace: request.CachePlace{Layout: "/l", Called: "./l"}, Others: true, Merge: true}
	b, told := resultsBuild(t, []request.CacheTarget{target}, dir)
	if err := b.openResults(); err != nil {
		t.Fatal(err)
	}
	b.handOut(t, "0", "a")
	if err := b.commitResults(); err != nil || !strings.Contains(told.String(), "index.json is no file") {
		t.Errorf("%v, %q", err, told)
	}
	b.discardResults()
}

// TestResultsThatDoNotFit: a disk that is too small for results costs them, and not the
// build; breaking the rules ends it all the same.
func TestResultsThatDoNotFit(t *testing.T) {
	target := request.CacheTarget{CachePlace: request.CachePlace{Layout: "/l", Called: "./l"}, Others: true}
	for _, strict := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "l")
		target.Strict = strict
		b, told := resultsBuild(t, []request.CacheTarget{target}, dir)
		if err := b.openResults(); err != nil {
			t.Fatal(err)
		}
		b.kept["0"].left, b.kept["0"].full = 3, &SpaceError{Dir: dir}
		digest, err := b.store.put([]byte("more than three bytes"))
		if err != nil {
			t.Fatal(err)
		}
		in := &intake{role: request.RoleBuild, store: b.store, kept: b.kept, open: map[uint32]incoming{}}
		if err := in.begin(request.Output{Kind: request.OutputKeep, Name: "0", Digest: digest}); (err != nil) != strict {
			t.Errorf("strict %v: %v", strict, err)
		}
		if err := say(in, request.Output{Kind: request.OutputIndex, Name: "0", Size: 5}, []byte("index"), ""); (err != nil) != strict {
			t.Errorf("strict %v: %v", strict, err)
		}
		if err := in.begin(request.Output{Kind: request.OutputKeep, Name: "0", Digest: guestDigest("never came")}); !errors.Is(err, errOutput) {
			t.Errorf("strict %v: %v", strict, err)
		}
		if err := b.commitResults(); !strict && (err != nil || !strings.Contains(told.String(), "cache ./l is not written: ")) {
			t.Errorf("%v, %q", err, told)
		}
		b.discardResults()
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("strict %v: %s is there, %v", strict, dir, err)
		}
	}
}

// TestExportedIsReceived: a result that names an index which nobody has handed out is
// not pushed.
func TestExportedIsReceived(t *testing.T) {
	there := request.Descriptor{Digest: guestDigest("x"), Size: 1}
	built := Built{Result: request.Result{Digest: there.Digest, Size: 1}, Blobs: func(d string) (int64, bool) { return 1, d == there.Digest }}
	built.Result.Exported = []request.Descriptor{there}
	if err := built.CheckReceived(); err != nil {
		t.Error(err)
	}
	for _, d := range []request.Descriptor{{Digest: guestDigest("y"), Size: 1}, {Digest: there.Digest, Size: 2}} {
		built.Result.Exported = []request.Descriptor{there, d}
		if err := built.CheckReceived(); !errors.Is(err, ErrNotReceived) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
