package git

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sort"
)

// limits bound what one repository may be.
type limits struct {
	objects  int   // in a pack
	received int64 // bytes of a pack
	inflated int64 // bytes of all objects of a pack, whole
	files    int   // in one checkout
	written  int64 // bytes of files in one checkout
	nesting  int   // of directories; each is open while it is written
	modules  int   // submodules in one checkout
	depth    int   // of submodules in one another
}

// defaultLimits let the largest public repositories pass.
var defaultLimits = limits{
	objects: 4 << 20, received: 16 << 30, inflated: 256 << 30,
	files: 4 << 20, written: 64 << 30, nesting: 512, modules: 1000, depth: 20,
}

// tap reads a pack byte by byte, as inflating it asks for, and keeps what was
// read.
type tap struct {
	r        io.Reader
	max      int64
	buf      []byte
	pos, end int
	kept     int   // of buf
	total    int64 // kept of all
	to       io.Writer
	crc      hash.Hash32
}

func (t *tap) offset() int64 { return t.total + int64(t.pos-t.kept) }

// keep hands on what was read up to here.
func (t *tap) keep() error {
	b := t.buf[t.kept:t.pos]
	t.kept = t.pos
	t.total += int64(len(b))
	t.crc.Write(b)
	_, err := t.to.Write(b)
	return err
}

func (t *tap) fill() error {
	if err := t.keep(); err != nil {
		return err
	}
	if t.total >= t.max {
		return fmt.Errorf("the repository exceeds %d bytes", t.max)
	}
	t.pos, t.kept, t.end = 0, 0, 0
	for range 100 {
		n, err := t.r.Read(t.buf)
		if n > 0 {
			t.end = n
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

func (t *tap) ReadByte() (byte, error) {
	if t.pos == t.end {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	b := t.buf[t.pos]
	t.pos++
	return b, nil
}

func (t *tap) Read(b []byte) (int, error) {
	if t.pos == t.end {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, t.buf[t.pos:t.end])
	t.pos += n
	return n, nil
}

// receive reads the pack that comes from r into p, checks it and makes all its
// objects whole.
func (p *pack) receive(r io.Reader, lim limits) error {
	err := p.take(r, lim)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("pack: the server hung up")
	}
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

func (p *pack) take(r io.Reader, lim limits) error {
	sum := p.format.new()
	out := bufio.NewWriterSize(p.file, 256<<10)
	t := &tap{r: r, max: lim.received, buf: make([]byte, 64<<10), to: io.MultiWriter(out, sum), crc: crc32.NewIEEE()}
	var head [12]byte
	if _, err := io.ReadFull(t, head[:]); err != nil {
		return err
	}
	version, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if string(head[:4]) != "PACK" || version != 2 && version != 3 {
		return errors.New("not a pack")
	}
	if int64(count) > int64(lim.objects) {
		return fmt.Errorf("%d objects are more than %d", count, lim.objects)
	}
	in := &intake{pack: p, tap: t, left: lim.inflated, waiting: map[id][]int32{}}
	for range count {
		if err := in.object(); err != nil {
			return err
		}
	}
	if err := t.keep(); err != nil {
		return err
	}
	want := p.format.sum(sum)
	if _, err := io.ReadFull(t, p.sum[:p.format.size]); err != nil {
		return err
	}
	if p.sum != want {
		return errors.New("checksum mismatch")
	}
	if err := errors.Join(t.keep(), out.Flush()); err != nil {
		return err
	}
	p.size = t.total
	if err := in.resolve(); err != nil {
		return err
	}
	p.sort()
	return nil
}

// intake is a pack while it comes in.
type intake struct {
	*pack
	tap     *tap
	inflate io.ReadCloser
	left    int64          // bytes that may still be inflated
	waiting map[id][]int32 // refDeltas, by their base
}

// object takes in one object.
func (in *intake) object() error {
	t := in.tap
	if err := t.keep(); err != nil {
		return err
	}
	t.crc.Reset()
	o := object{offset: t.offset(), whole: -1, base: -1}
	if err := in.header(&o); err != nil {
		return err
	}
	o.head = uint8(t.offset() - o.offset)
	if in.left -= o.size; in.left < 0 || o.size < 0 {
		return errors.New("too much data")
	}
	var err error
	if in.inflate, err = reset(in.inflate, t); err != nil {
		return err
	}
	w := io.Discard
	var sum hash.Hash
	if o.kind != ofsDelta && o.kind != refDelta {
		sum = in.format.new()
		fmt.Fprintf(sum, "%s %d\x00", o.kind, o.size)
		w = sum
	}
	// One more byte is asked for: the end with its checksum has to be read.
	n, err := io.Copy(w, io.LimitReader(in.inflate, o.size+1))
	if err != nil {
		return fmt.Errorf("object at %d: %w", o.offset, err)
	}
	if n != o.size {
		return fmt.Errorf("object at %d has another size than it says", o.offset)
	}
	if sum != nil {
		o.id = in.format.sum(sum)
	}
	if err := t.keep(); err != nil {
		return err
	}
	o.crc = t.crc.Sum32()
	in.objects = append(in.objects, o)
	return nil
}

// header reads kind, size and base of an object (gitformat-pack).
func (in *intake) header(o *object) error {
	b, err := in.tap.ReadByte()
	if err != nil {
		return err
	}
	o.kind, o.size = kind(b>>4&7), int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = in.tap.ReadByte(); err != nil {
			return err
		}
		if shift > 50 {
			return errors.New("object too large")
		}
		o.size |= int64(b&0x7f) << shift
	}
	switch o.kind {
	case commitKind, treeKind, blobKind, tagKind:
		return nil
	case ofsDelta:
		return in.baseByOffset(o)
	case refDelta:
		var base id
		if _, err := io.ReadFull(in.tap, base[:in.format.size]); err != nil {
			return err
		}
		in.waiting[base] = append(in.waiting[base], int32(len(in.objects)))
		return nil
	}
	return fmt.Errorf("object of %s", o.kind)
}

func (in *intake) baseByOffset(o *object) error {
	b, err := in.tap.ReadByte()
	if err != nil {
		return err
	}
	back := int64(b & 0x7f)
	for b&0x80 != 0 {
		if b, err = in.tap.ReadByte(); err != nil {
			return err
		}
		if back >= 1<<50 {
			return errors.New("delta offset too large")
		}
		back = (back+1)<<7 | int64(b&0x7f)
	}
	base := o.offset - back
	at := sort.Search(len(in.objects), func(i int) bool { return in.objects[i].offset >= base })
	if at == len(in.objects) || in.objects[at].offset != base {
		return errors.New("delta without a base")
	}
	o.base = int32(at)
	return nil
}
