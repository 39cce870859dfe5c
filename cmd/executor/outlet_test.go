package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// TestResultsOnAVolume: results of steps lie in a layout of their own, whose index grows if
// it is to.
func TestResultsOnAVolume(t *testing.T) {
	const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // abc
	image, kept, renewed := t.TempDir(), filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "new")
	o := &fileOutlet{layout: image, results: []request.CacheTarget{
		{CachePlace: request.CachePlace{Repository: "x"}},
		{CachePlace: request.CachePlace{Layout: request.GuestPath(kept)}, Merge: true},
		{CachePlace: request.CachePlace{Layout: request.GuestPath(renewed)}},
	}}
	write := func(what request.Output, content string) {
		t.Helper()
		s, err := o.Open(what)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(""); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a", "b"} {
		for _, name := range []string{"1", "2"} {
			write(request.Output{Kind: request.OutputBlob, Name: name, Digest: digest}, "abc")
			write(request.Output{Kind: request.OutputIndex, Name: name}, `{"manifests":[{"digest":"`+digest+`","annotations":{"`+request.ResultKey+`":"`+key+`"}}]}`)
		}
	}
	for dir, want := range map[string]string{kept: `"a".*"b"`, renewed: `"b"`} {
		b, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil || strings.Contains(string(b), `"a"`) != strings.Contains(want, "a") || !strings.Contains(string(b), `"b"`) {
			t.Errorf("%s, %v, want %s", b, err, want)
		}
		for _, name := range []string{"oci-layout", "blobs/sha256/" + digest[len("sha256:"):]} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"0", "3", "-1", "x"} {
		if _, err := o.Open(request.Output{Kind: request.OutputIndex, Name: name}); err == nil {
			t.Errorf("there is a layout %s", name)
		}
	}
	// A layout in a checkout, whose links lead out of it.
	for _, name := range []string{"oci-layout", "index.json", "blobs", "blobs/sha256"} {
		dir, far := t.TempDir(), t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.Symlink(far, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		hostile := &fileOutlet{layout: dir}
		for _, kind := range []request.OutputKind{request.OutputIndex, request.OutputBlob} {
			if _, err := hostile.Open(request.Output{Kind: kind, Digest: digest}); err == nil {
				t.Errorf("%s is a link, and was followed", name)
			}
		}
	}
	if left, err := os.ReadDir(image); err != nil || len(left) > 0 {
		t.Errorf("in the image's layout: %v, %v", left, err)
	}
}
