package git

import (
	"bufio"
	"encoding/binary"
	"hash"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// indexed is a file of a worktree, as .git/index has it.
type indexed struct {
	path string
	mode uint32
	id   id
	st   unix.Stat_t
}

// summed writes to w and ends with the checksum of what was written.
type summed struct {
	w   *bufio.Writer
	sum hash.Hash
}

func newSummed(w io.Writer, f format) *summed {
	return &summed{bufio.NewWriterSize(w, 64<<10), f.new()}
}

func (s *summed) Write(b []byte) (int, error) {
	s.sum.Write(b)
	return s.w.Write(b)
}

func (s *summed) numbers(list ...uint32) error {
	b := make([]byte, 0, 64)
	for _, n := range list {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	_, err := s.Write(b)
	return err
}

func (s *summed) end() error {
	if _, err := s.w.Write(s.sum.Sum(nil)); err != nil {
		return err
	}
	return s.w.Flush()
}

// writeIndex writes an index, version 2 (gitformat-index).
func writeIndex(w io.Writer, f format, list []indexed) error {
	slices.SortFunc(list, func(a, b indexed) int { return strings.Compare(a.path, b.path) })
	s := newSummed(w, f)
	io.WriteString(s, "DIRC")
	s.numbers(2, uint32(len(list)))
	for _, e := range list {
		mode, size := e.mode, e.st.Size
		switch {
		case mode&modeType == modeRepo:
			size = 0
		case mode&modeType == modeFile:
			mode = modeFile | e.st.Mode&0o777
		}
		s.numbers(uint32(e.st.Ctim.Sec), uint32(e.st.Ctim.Nsec), uint32(e.st.Mtim.Sec), uint32(e.st.Mtim.Nsec),
			uint32(e.st.Dev), uint32(e.st.Ino), mode, e.st.Uid, e.st.Gid, uint32(size))
		b := append([]byte{}, e.id[:f.size]...)
		b = binary.BigEndian.AppendUint16(b, uint16(min(len(e.path), 0xfff)))
		b = append(b, e.path...)
		// One to eight zeros, so that the entry's length is a multiple of eight.
		n := 40 + len(b)
		b = append(b, make([]byte, 8-n%8)...)
		s.Write(b)
	}
	return s.end()
}

// writePackIndex writes the index of a pack, version 2 (gitformat-pack).
func (p *pack) writePackIndex(w io.Writer) error {
	s := newSummed(w, p.format)
	s.Write([]byte("\xfftOc"))
	s.numbers(2)
	// How many ids begin with a byte up to each.
	var upTo [256]uint32
	for _, at := range p.byID {
		upTo[p.objects[at].id[0]]++
	}
	for i := 1; i < 256; i++ {
		upTo[i] += upTo[i-1]
	}
	s.numbers(upTo[:]...)
	for _, at := range p.byID {
		s.Write(p.objects[at].id[:p.format.size])
	}
	for _, at := range p.byID {
		s.numbers(p.objects[at].crc)
	}
	var far []uint32 // offsets that need 64 bits
	for _, at := range p.byID {
		offset := p.objects[at].offset
		if offset < 1<<31 {
			s.numbers(uint32(offset))
			continue
		}
		s.numbers(1<<31 | uint32(len(far)/2))
		far = append(far, uint32(offset>>32), uint32(offset))
	}
	s.numbers(far...)
	s.Write(p.sum[:p.format.size])
	return s.end()
}
