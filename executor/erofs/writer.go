package erofs

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// BlockSize is that of every image, in bytes; gVisor wants a page.
const BlockSize = 1 << blockBits

const (
	blockBits = 12
	// bufferSize is more than twice what an inode may have beside it.
	bufferSize = 64 * BlockSize
)

// Writer writes one image. It is for one goroutine.
type Writer struct {
	w     io.Writer
	buf   []byte
	block uint64 // the next
	err   error
}

// NewWriter returns a writer of an image to w, which gets all of it but block 0,
// in order. The caller puts that in front when Close has told it.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, buf: make([]byte, bufferSize), block: 1}
}

// Write writes the contents of a file, size bytes of r, and returns where they
// are, for Node.Data. After an error the image is of no use. The error is r's,
// io.ErrUnexpectedEOF if r has less, or that of the writer below.
func (w *Writer) Write(r io.Reader, size int64) (Data, error) {
	if size == 0 {
		return Data{}, w.err
	}
	if size < 0 || w.block+blocks(size) > math.MaxUint32 {
		return Data{}, w.fail(fmt.Errorf("%w: a file of %d bytes", ErrInvalid, size))
	}
	d := Data{block: uint32(w.block), size: size}
	for left := size; left > 0 && w.err == nil; {
		b := w.buf[:min(int64(len(w.buf)), left)]
		_, err := io.ReadFull(r, b)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Data{}, w.fail(err)
		}
		left -= int64(len(b))
		w.put(b)
	}
	return d, w.err
}

// put writes b and fills its last block up; len(b) is at most len(w.buf).
func (w *Writer) put(b []byte) {
	if w.err != nil {
		return
	}
	n := blocks(int64(len(b)))
	full := b
	if rest := int(n)*BlockSize - len(b); rest > 0 {
		if &b[0] != &w.buf[0] {
			copy(w.buf, b)
		}
		full = w.buf[:int(n)*BlockSize]
		clear(full[len(b):])
	}
	if _, err := w.w.Write(full); err != nil {
		_ = w.fail(err)
		return
	}
	w.block += n
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// blocks is how many blocks n bytes take.
func blocks(n int64) uint64 { return (uint64(n) + BlockSize - 1) >> blockBits }

// Close writes the tree below root, which must be a directory that NewDir has
// made, and returns block 0 and the size of the whole image in bytes.
func (w *Writer) Close(root *Node) (first []byte, size int64, err error) {
	if w.err != nil {
		return nil, 0, w.err
	}
	if root.Kind != Dir || root.parent != nil {
		return nil, 0, w.fail(fmt.Errorf("%w: the root is no directory of its own", ErrInvalid))
	}
	if err := root.check(); err != nil {
		return nil, 0, w.fail(err)
	}
	root.parent = root // its ".."
	l, err := layOut(root, w.block)
	if err != nil {
		return nil, 0, w.fail(err)
	}
	w.directories(l)
	w.metadata(l)
	if w.err != nil {
		return nil, 0, w.err
	}
	w.err = errors.New("the image is complete")
	return l.superblock(w.block), int64(w.block) << blockBits, nil
}
