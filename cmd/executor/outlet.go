package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// fileOutlet writes outputs to files, where no launcher does it. Each appears
// under its name when it is complete.
type fileOutlet struct {
	layout string        // directory of the OCI layout
	tar    string        // file
	caches *cachedir.Dir // cache mounts, or nil
}

// Open implements executor.Outlet.
func (o *fileOutlet) Open(what request.Output) (io.WriteCloser, error) {
	path := o.tar
	switch what.Kind {
	case request.OutputCache:
		return o.keep(what)
	case request.OutputTar:
	case request.OutputIndex:
		marker := []byte(`{"imageLayoutVersion":"1.0.0"}`)
		if err := os.WriteFile(filepath.Join(o.layout, "oci-layout"), marker, 0o644); err != nil {
			return nil, err
		}
		path = filepath.Join(o.layout, "index.json")
	case request.OutputBlob:
		h, err := v1.NewHash(what.Digest)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(o.layout, "blobs", h.Algorithm, h.Hex)
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
	return &outputFile{File: f, path: path}, nil
}

// keep opens a layer of a cache mount.
func (o *fileOutlet) keep(what request.Output) (io.WriteCloser, error) {
	switch {
	case o.caches == nil:
		return nil, errors.New("no cache directory")
	case what.Digest == "":
		return keptLayer{}, o.caches.Touch(cachedir.Key(what.Name), what.Base)
	}
	in, err := o.caches.Create(cachedir.Key(what.Name), cachedir.Layer{Digest: what.Digest, Size: what.Size})
	return keptLayer{in, what.Base}, err
}

// keptLayer is a layer of a cache mount that is kept when it is closed.
type keptLayer struct {
	*cachedir.Incoming // nil: nothing changed
	base               string
}

func (l keptLayer) Close() error {
	if l.Incoming == nil {
		return nil
	}
	return l.Commit(l.base)
}

// outputFile is a file that gets its name when it is closed.
type outputFile struct {
	*os.File
	path string
}

func (f *outputFile) Close() error {
	err := f.Chmod(0o644)
	if e := f.File.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
