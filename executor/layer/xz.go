package layer

import (
	"bufio"
	"encoding/binary"
	"errors"

	"github.com/ulikunitz/xz/lzma"
)

// xzGuard passes an xz stream on and refuses a block that asks for a dictionary
// of more than maxWindow: the decoder would allocate what the header says, up to
// 4 GiB. To find the block headers it follows the structure of the file (the .xz
// file format, version 1.2.1); everything else is left to the decoder to check.
type xzGuard struct {
	r     *bufio.Reader
	pos   int64              // bytes seen
	skip  int64              // bytes to let pass
	need  int                // bytes to collect for next
	got   []byte             // bytes collected
	next  func([]byte) error // what they are
	check int64              // size of a block's check
	block int64              // pos where the block or index began
	recs  uint64             // varints left in the index
	err   error
}

var errXz = errors.New("malformed xz stream")

func (g *xzGuard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.next == nil {
		g.want(4, g.streamStart)
	}
	n, err := g.r.Read(p)
	if g.err = g.follow(p[:n]); g.err != nil {
		return 0, g.err
	}
	return n, err
}

func (g *xzGuard) follow(p []byte) error {
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(g.skip, int64(len(p)))
			g.skip, g.pos, p = g.skip-n, g.pos+n, p[n:]
			continue
		}
		n := min(g.need-len(g.got), len(p))
		g.got = append(g.got, p[:n]...)
		g.pos, p = g.pos+int64(n), p[n:]
		if len(g.got) < g.need {
			return nil
		}
		b := g.got
		g.got = g.got[:0]
		if err := g.next(b); err != nil {
			return err
		}
	}
	return nil
}

func (g *xzGuard) want(n int, next func([]byte) error) { g.need, g.next = n, next }

func (g *xzGuard) streamStart(b []byte) error {
	if binary.LittleEndian.Uint32(b) == 0 { // padding between streams
		return nil
	}
	g.want(8, g.streamHeader)
	return nil
}

func (g *xzGuard) streamHeader(b []byte) error {
	sizes := [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
	g.check = sizes[b[3]&15]
	g.want(1, g.blockStart)
	return nil
}

func (g *xzGuard) blockStart(b []byte) error {
	g.block = g.pos - 1
	if b[0] == 0 {
		g.recs = 0
		g.want(1, g.indexCount(0, 0))
		return nil
	}
	g.want((int(b[0])+1)*4-1, g.blockHeader)
	return nil
}

// blockHeader reads the flags, the optional sizes and the one filter that the
// decoder knows, LZMA2.
func (g *xzGuard) blockHeader(b []byte) error {
	flags, b := b[0], b[1:]
	if flags&3 != 0 {
		return errors.New("xz filters other than LZMA2 are not supported")
	}
	for bit := byte(0x40); bit != 0; bit <<= 1 {
		if flags&bit == 0 {
			continue
		}
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return errXz
		}
		b = b[n:]
	}
	if len(b) < 3 || b[0] != 0x21 || b[1] != 1 {
		return errXz
	}
	size, err := lzma.DecodeDictCap(b[2])
	if err != nil {
		return errXz
	}
	if size > maxWindow {
		return errors.New("xz dictionary is larger than 128 MiB")
	}
	g.want(1, g.chunk)
	return nil
}

// chunk reads the control byte of an LZMA2 chunk.
func (g *xzGuard) chunk(b []byte) error {
	switch c := b[0]; {
	case c == 0:
		g.skip = -(g.pos-g.block)&3 + g.check
		g.want(1, g.blockStart)
	case c < 3:
		g.want(2, func(b []byte) error {
			g.skip = int64(binary.BigEndian.Uint16(b)) + 1
			g.want(1, g.chunk)
			return nil
		})
	case c >= 0x80:
		g.want(4, func(b []byte) error {
			g.skip = int64(binary.BigEndian.Uint16(b[2:])) + 1
			if c >= 0xc0 { // a properties byte comes first
				g.skip++
			}
			g.want(1, g.chunk)
			return nil
		})
	default:
		return errXz
	}
	return nil
}

// indexCount reads the number of records, a varint, byte by byte.
func (g *xzGuard) indexCount(v uint64, shift uint) func([]byte) error {
	return func(b []byte) error {
		if shift > 56 {
			return errXz
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0]&0x80 != 0 {
			g.want(1, g.indexCount(v, shift+7))
			return nil
		}
		g.recs = v * 2
		return g.indexRecords()
	}
}

// indexRecords passes the sizes, the padding, the sum and the stream's footer.
func (g *xzGuard) indexRecords() error {
	if g.recs == 0 {
		g.skip = -(g.pos-g.block)&3 + 4 + 12
		g.want(4, g.streamStart)
		return nil
	}
	g.want(1, func(b []byte) error {
		if b[0]&0x80 == 0 {
			g.recs--
			return g.indexRecords()
		}
		return nil
	})
	return nil
}
