package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Format is what a stream looks like from its first bytes.
type Format int

// The formats that are told apart. Unknown is anything else, text for example.
const (
	Unknown Format = iota
	Tar
	Gzip
	Bzip2
	Xz
	Zstd
)

func (f Format) String() string {
	switch f {
	case Tar:
		return "tar"
	case Gzip:
		return "gzip"
	case Bzip2:
		return "bzip2"
	case Xz:
		return "xz"
	case Zstd:
		return "zstd"
	}
	return "unknown"
}

const (
	sniffLen = 512 // a tar header; the other formats need less
	// maxWindow is the largest window or dictionary in bytes that a
	// decompressor may keep: what zstd --ultra -22 and --long=27 need, twice
	// that of xz -9.
	maxWindow = 128 << 20
)

// Sniff names the format of a stream that begins with head, which should hold
// 512 bytes when the stream is that long. The file's name does not count, as in
// BuildKit.
func Sniff(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	case isZstd(head):
		return Zstd
	case isTar(head):
		return Tar
	}
	return Unknown
}

// isZstd also takes a skippable frame, with which some tools begin (RFC 8878,
// section 3.1.2).
func isZstd(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	magic := binary.LittleEndian.Uint32(head)
	return magic == 0xfd2fb528 || magic&^0xf == 0x184d2a50
}

// isTar checks the header's sum, as archive/tar does; archives older than the
// ustar magic have nothing else to be known by.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	var unsigned, signed int64
	for i, c := range head[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	var want int64
	for _, c := range bytes.Trim(head[148:156], " \x00") {
		if c < '0' || c > '7' {
			return false
		}
		want = want*8 + int64(c-'0')
	}
	return want != 0 && (want == unsigned || want == signed)
}

// Decompress undoes the compression that r's first bytes show; other streams
// come out as they are. Everything is done in this process: no program is
// started. Close ends the decompressor and leaves r open.
func Decompress(r io.Reader) (io.ReadCloser, Format, error) {
	b := bufio.NewReaderSize(r, 1<<18)
	head, err := b.Peek(sniffLen)
	if err != nil && err != io.EOF {
		return nil, Unknown, err
	}
	f := Sniff(head)
	d, err := decompressor(f, b)
	if err != nil {
		return nil, f, fmt.Errorf("%w: %s: %w", ErrInvalid, f, err)
	}
	return d, f, nil
}

func decompressor(f Format, r *bufio.Reader) (io.ReadCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewReader(r)
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case Xz:
		x, err := xz.ReaderConfig{DictCap: 1 << 16}.NewReader(&xzGuard{r: r})
		return io.NopCloser(x), err
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// IsArchive says whether ADD unpacks what r holds: a tar, compressed or not,
// with at least one header. Anything else is copied as a file.
func IsArchive(r io.Reader) bool {
	d, _, err := Decompress(r)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = tar.NewReader(d).Next()
	return err == nil
}
