package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/zlib"
)

// pack is the objects that a server sent. It lies on disk: as it came, and the
// objects that came as differences from others once more, whole.
// It is for one goroutine.
type pack struct {
	format  format
	file    *os.File // as it came, with header and checksum
	size    int64
	sum     id
	whole   *os.File // objects that were deltas, one after another
	objects []object // in the order of the pack
	byID    []int32  // indexes of objects, sorted by id

	inflate io.ReadCloser // reused, as is chunk
	chunk   *bufio.Reader
}

// object is one of a pack.
type object struct {
	id     id
	offset int64  // in file, of its header
	size   int64  // inflated
	whole  int64  // where it is in the file of that name; -1: not there
	crc    uint32 // of its bytes in file
	base   int32  // index of the object that an ofsDelta changes
	head   uint8  // bytes of its header
	kind   kind
}

// newPack makes an empty pack in dir. Its files have no names there any more.
func newPack(dir string, f format) (*pack, error) {
	p := &pack{format: f}
	var err error
	if p.file, err = unnamed(dir); err != nil {
		return nil, err
	}
	if p.whole, err = unnamed(dir); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "git-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p *pack) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.file.Close(), p.whole.Close())
}

// sort makes objects findable.
func (p *pack) sort() {
	p.byID = make([]int32, len(p.objects))
	for i := range p.byID {
		p.byID[i] = int32(i)
	}
	slices.SortFunc(p.byID, func(a, b int32) int {
		return bytes.Compare(p.objects[a].id[:], p.objects[b].id[:])
	})
}

func (p *pack) find(i id) (at int32, ok bool) {
	n, ok := slices.BinarySearchFunc(p.byID, i, func(at int32, i id) int {
		return bytes.Compare(p.objects[at].id[:], i[:])
	})
	if !ok {
		return 0, false
	}
	return p.byID[n], true
}

// open returns what an object holds, or for one that is not whole yet its
// delta. The reader is good until the next open.
func (p *pack) open(at int32) (io.Reader, error) {
	o := p.objects[at]
	if o.whole >= 0 {
		return io.NewSectionReader(p.whole, o.whole, o.size), nil
	}
	start := o.offset + int64(o.head)
	section := io.NewSectionReader(p.file, start, p.size-start)
	if p.chunk == nil {
		p.chunk = bufio.NewReaderSize(section, 32<<10)
	} else {
		p.chunk.Reset(section)
	}
	var err error
	p.inflate, err = reset(p.inflate, p.chunk)
	if err != nil {
		return nil, fmt.Errorf("object at %d: %w", o.offset, err)
	}
	return p.inflate, nil
}

// reset makes a zlib reader read from r, or makes one.
func reset(z io.ReadCloser, r io.Reader) (io.ReadCloser, error) {
	if z == nil {
		return zlib.NewReader(r)
	}
	return z, z.(zlib.Resetter).Reset(r, nil)
}
