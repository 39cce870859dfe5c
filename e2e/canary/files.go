package canary

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxUnpacked bounds what is unpacked of one file, in bytes, maxNested how often
// something packed lies in something packed.
const (
	maxUnpacked = 4 << 30
	maxNested   = 4
)

// Tree looks into all files below dir, by their paths, and into the paths. While
// a build is at work, files may come and go, and packed ones end early.
func (s *Search) Tree(dir string, atWork bool) (found map[string]Hits, files int, err error) {
	found = map[string]Hits{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if atWork && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		hits := s.text(path)
		if target, err := os.Readlink(path); err == nil {
			hits.Add(s.text(target))
		}
		if d.Type().IsRegular() {
			files++
			more, err := s.file(path)
			if atWork && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF)) {
				err = nil
			}
			if err != nil {
				return err
			}
			hits.Add(more)
		}
		if len(hits) > 0 {
			found[path] = hits
		}
		return nil
	})
	return found, files, err
}

func (s *Search) text(text string) Hits {
	hits, _, _ := s.In(bytes.NewReader([]byte(text))) // a reader of bytes never fails
	return hits
}

func (s *Search) file(path string) (Hits, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hits, _, err := s.In(f)
	if err != nil {
		return hits, fmt.Errorf("read %s: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return hits, err
	}
	more, err := s.unpacked(io.LimitReader(f, maxUnpacked), maxNested)
	hits.Add(more)
	if err != nil {
		return hits, fmt.Errorf("unpack %s: %w", path, err)
	}
	return hits, nil
}

// unpacked looks into what r has packed, if it has.
func (s *Search) unpacked(r io.Reader, depth int) (Hits, error) {
	in := bufio.NewReaderSize(r, block)
	plain, err := unpack(in)
	if plain == nil || err != nil || depth == 0 {
		return nil, err
	}
	// What is unpacked is read twice at once: as it is, and unpacked again.
	pr, pw := io.Pipe()
	deeper := make(chan Hits)
	go func() {
		hits, _ := s.unpacked(pr, depth-1) // what only looks packed is none
		_, _ = io.Copy(io.Discard, pr)
		deeper <- hits
	}()
	hits, _, err := s.In(io.TeeReader(io.LimitReader(plain, maxUnpacked), pw))
	pw.Close()
	hits.Add(<-deeper)
	return hits, err
}

// unpack is a reader of what in has packed; nil: nothing.
func unpack(in *bufio.Reader) (io.Reader, error) {
	head, err := in.Peek(6)
	if err != nil {
		return nil, nil // too short
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return gzip.NewReader(in)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(in)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xz.NewReader(in)
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(in), nil
	}
	return nil, nil
}
