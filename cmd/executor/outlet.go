package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// fileOutlet writes outputs to files, where no launcher does it. Each appears
// under its name when it is complete.
type fileOutlet struct {
	layout string // directory of the OCI layout
	tar    string // file
}

// Open implements executor.Outlet.
func (o *fileOutlet) Open(what request.Output) (io.WriteCloser, error) {
	path := o.tar
	switch what.Kind {
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
