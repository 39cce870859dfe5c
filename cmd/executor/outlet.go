package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// fileOutlet writes outputs to files, where no launcher does it. Each appears
// under its name when it is complete.
type fileOutlet struct {
	layout  string                // directory of the OCI layout
	results []request.CacheTarget // by their numbers, some of them are layouts
	tar     string                // file
	caches  *cachedir.Dir         // cache mounts, or nil
}

// Open implements request.Outlet.
func (o *fileOutlet) Open(what request.Output) (request.Stream, error) {
	path := o.tar
	layout, merge, err := o.place(what.Name)
	if err != nil && what.Kind != request.OutputCache {
		return nil, err
	}
	if what.Kind == request.OutputIndex || what.Kind == request.OutputBlob {
		if err := plain(layout); err != nil {
			return nil, err
		}
	}
	switch what.Kind {
	case request.OutputCache:
		return o.keep(what)
	case request.OutputTar:
	case request.OutputIndex:
		marker := []byte(`{"imageLayoutVersion":"1.0.0"}`)
		if err := errors.Join(os.MkdirAll(layout, 0o755), os.WriteFile(filepath.Join(layout, "oci-layout"), marker, 0o644)); err != nil {
			return nil, err
		}
		path = filepath.Join(layout, "index.json")
	case request.OutputBlob:
		h, err := v1.NewHash(what.Digest)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(layout, "blobs", h.Algorithm, h.Hex)
	default:
		return nil, fmt.Errorf("output %q: unknown", what.Kind)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return nil, err
	}
	return &outputFile{File: f, path: path, merge: merge && what.Kind == request.OutputIndex}, nil
}

// plain refuses a layout with links where we write, or read: it can lie in a checkout,
// whose links lead where its author wants.
func plain(layout string) error {
	for _, name := range []string{"oci-layout", "index.json", "blobs", "blobs/sha256"} {
		info, err := os.Lstat(filepath.Join(layout, name))
		if err == nil && info.Mode().Type()&^fs.ModeDir != 0 {
			return fmt.Errorf("layout %s: %s is no file of a layout's", layout, name)
		}
	}
	return nil
}

// place is the layout of a name, see request.OutputKeep.
func (o *fileOutlet) place(name string) (dir string, merge bool, err error) {
	if name == "" {
		return o.layout, false, nil
	}
	n, err := strconv.Atoi(name)
	if err != nil || n < 0 || n >= len(o.results) || o.results[n].Layout == "" {
		return "", false, fmt.Errorf("output for %q: unknown", name)
	}
	return string(o.results[n].Layout), o.results[n].Merge, nil
}

// Keep implements request.Outlet: blobs come one by one here.
func (o *fileOutlet) Keep(what request.Output) error {
	return fmt.Errorf("output %s: there is no store that it could be kept in", what.Digest)
}

// keep opens a layer of a cache mount.
func (o *fileOutlet) keep(what request.Output) (request.Stream, error) {
	switch {
	case o.caches == nil:
		return nil, errors.New("no cache directory")
	case what.Digest == "":
		return keptLayer{}, o.caches.Touch(cachedir.Key(what.Name), what.Base)
	}
	in, err := o.caches.Create(cachedir.Key(what.Name), cachedir.Layer{Digest: what.Digest, Size: what.Size})
	return keptLayer{in, what.Base}, err
}

// keptLayer is a layer of a cache mount that is kept when it is complete.
type keptLayer struct {
	*cachedir.Incoming // nil: nothing changed
	base               string
}

// Commit implements request.Stream.
func (l keptLayer) Commit(string) error {
	if l.Incoming == nil {
		return nil
	}
	return l.Incoming.Commit(l.base)
}

// Close implements request.Stream.
func (l keptLayer) Close() error {
	if l.Incoming != nil {
		l.Discard()
	}
	return nil
}

// outputFile is a file that gets its name when it is complete.
type outputFile struct {
	*os.File
	path  string
	merge bool // with the index that is there
	done  bool
}

// Commit implements request.Stream.
func (f *outputFile) Commit(string) error {
	if f.merge {
		if err := merge(f.Name(), f.path); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Chmod(0o644), f.File.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	f.done = true
	return nil
}

// Close implements request.Stream.
func (f *outputFile) Close() error {
	if f.done {
		return nil
	}
	f.File.Close()
	return os.Remove(f.Name())
}

// merge adds the results that are in old, if it is there, to those in a new index.
func merge(path, old string) error {
	was, err := os.ReadFile(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	is, e := os.ReadFile(path)
	if err = errors.Join(err, e); err == nil {
		is, err = request.MergeResults(was, is)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, is, 0o644)
}
