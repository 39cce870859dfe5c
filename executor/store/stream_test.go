package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// recorder is an outlet that remembers what came.
type recorder struct {
	all  []*recorded
	full bool
}

type recorded struct {
	bytes.Buffer
	what   request.Output
	digest string
	state  string // committed, dropped; empty: open
}

func (r *recorder) Open(what request.Output) (request.Stream, error) {
	if r.full {
		return nil, errors.New("full")
	}
	r.all = append(r.all, &recorded{what: what})
	return r.all[len(r.all)-1], nil
}

func (r *recorder) Keep(request.Output) error { return nil }

func (r *recorded) Commit(digest string) error {
	r.digest, r.state = digest, "committed"
	return nil
}

func (r *recorded) Close() error {
	if r.state == "" {
		r.state = "dropped"
	}
	return nil
}

// streaming is a store that streams to a recorder, over one that has below.
func streaming(t *testing.T, keep bool, below ...string) (*store.Store, *recorder, string) {
	t.Helper()
	lower := t.TempDir()
	for _, data := range below {
		if _, err := open(t, lower).Put([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	fixed, err := store.ReadOnly(lower)
	if err != nil {
		t.Fatal(err)
	}
	out, dir := &recorder{}, t.TempDir()
	s, err := store.Streaming(dir, out, fixed, keep)
	if err != nil {
		t.Fatal(err)
	}
	return s, out, dir
}

// blob writes a blob in two parts.
func blob(t *testing.T, s *store.Store, data string, commit bool) v1.Hash {
	t.Helper()
	b, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{data[:1], data[1:]} {
		if _, err := io.WriteString(b, part); err != nil {
			t.Fatal(err)
		}
	}
	h := b.Sum()
	if commit {
		got, n, err := b.Commit()
		if err != nil || got != h || n != int64(len(data)) {
			t.Fatalf("%s of %d bytes, %v; want %s", got, n, err, h)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestBlobsStream: a blob goes out, and stays here only if it is small or wanted.
func TestBlobsStream(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s, out, _ := streaming(t, keep)
		large := blob(t, s, "large", true)
		small, err := s.Put([]byte("small"))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			hash v1.Hash
			data string
			size int64
		}{{large, "large", 0}, {small, "small", 5}} {
			r := out.all[i]
			if r.String() != want.data || r.digest != want.hash.String() || r.state != "committed" || r.what.Kind != request.OutputStored || r.what.Size != want.size {
				t.Errorf("%s: %+v", want.data, r)
			}
			if !s.Has(want.hash) {
				t.Errorf("%s is not there", want.data)
			}
		}
		if got, err := s.Read(small); err != nil || string(got) != "small" {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := s.Read(large); (err == nil) != keep || keep && string(got) != "large" {
			t.Errorf("keep %t: %q, %v", keep, got, err)
		}
	}
}

// TestDroppedStream: what is not committed is told so, and leaves nothing.
func TestDroppedStream(t *testing.T) {
	s, out, dir := streaming(t, true)
	h := blob(t, s, "half", false)
	if r := out.all[0]; r.state != "dropped" || s.Has(h) {
		t.Errorf("%s, there: %t", r.state, s.Has(h))
	}
	out.full = true
	if _, err := s.Put([]byte("x")); err == nil || !strings.Contains(err.Error(), "full") {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "blobs", "new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestStoreBelow: what earlier roles left is found, and cannot be changed.
func TestStoreBelow(t *testing.T) {
	dir := t.TempDir()
	earlier := open(t, dir)
	h, err := earlier.Put([]byte("base"))
	if err != nil {
		t.Fatal(err)
	}
	desc := v1.Descriptor{Digest: h, Size: 4}
	if err := errors.Join(earlier.Tag("base", desc), earlier.Remember(h, "registry.test/base")); err != nil {
		t.Fatal(err)
	}
	fixed, err := store.ReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Streaming(t.TempDir(), &recorder{}, fixed, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*store.Store{"below": fixed, "above": s} {
		data, err := s.Read(h)
		if err != nil || string(data) != "base" || !s.Has(h) {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if d, err := s.Tagged("base"); err != nil || d.Digest != h {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if repo, ok := s.Source(h); !ok || repo != "registry.test/base" {
			t.Errorf("%s: %q", name, repo)
		}
		if _, err := s.Tagged("other"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := fixed.Create(); err == nil {
		t.Error("a read-only store takes a blob")
	}
	if err := fixed.Tag("x", desc); err == nil {
		t.Error("a read-only store takes a tag")
	}
	if err := fixed.Remember(h, "x"); err == nil {
		t.Error("a read-only store takes a source")
	}
	// Its own word counts first.
	if err := errors.Join(s.Tag("base", v1.Descriptor{Digest: h, Size: 9}), s.Remember(h, "mine")); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Tagged("base"); err != nil || d.Size != 9 {
		t.Errorf("%+v, %v", d, err)
	}
	if repo, _ := s.Source(h); repo != "mine" {
		t.Error(repo)
	}
}

// TestHandOut: what the store knows beside its blobs goes out as OCI and JSON have
// it, also if it knows nothing.
func TestHandOut(t *testing.T) {
	s, out, _ := streaming(t, false)
	h := blob(t, s, "x", true)
	for range 2 {
		out.all = nil
		if err := s.HandOut(); err != nil {
			t.Fatal(err)
		}
		kinds := map[request.OutputKind]string{}
		for _, r := range out.all {
			if r.what.Size != int64(r.Len()) || r.state != "committed" || !json.Valid(r.Bytes()) {
				t.Errorf("%+v", r)
			}
			kinds[r.what.Kind] = r.String()
		}
		_, known := s.Source(h)
		if len(kinds) != 2 || known != strings.Contains(kinds[request.OutputSources], "registry.test") || known != strings.Contains(kinds[request.OutputTags], "base") {
			t.Errorf("%q", kinds)
		}
		if err := errors.Join(s.Tag("base", v1.Descriptor{Digest: h}), s.Remember(h, "registry.test/x")); err != nil {
			t.Fatal(err)
		}
	}
	out.full = true
	if err := s.HandOut(); err == nil {
		t.Error("nobody says that it did not go out")
	}
}
