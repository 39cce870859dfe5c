package git

import (
	"bufio"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// maxBase is the largest base that is held in memory while what is made of it
// is; a larger one is read from disk.
const maxBase = 32 << 20

// resolve makes objects of all deltas and writes them to the file for them, so
// that each is made once and none is held in memory. A base comes before what is
// made of it, so nothing recurses however long the chains are.
func (in *intake) resolve() error {
	// The deltas of each base by offset, as lists: first of a base, next of a delta.
	first, next := make([]int32, len(in.objects)), make([]int32, len(in.objects))
	for i := range first {
		first[i], next[i] = -1, -1
	}
	open := 0
	var ready []int32
	for i, o := range in.objects {
		switch o.kind {
		case ofsDelta:
			next[i], first[o.base] = first[o.base], int32(i)
			open++
		case refDelta:
			open++
		default:
			ready = append(ready, int32(i))
		}
	}
	out := &appender{w: bufio.NewWriterSize(in.whole, 256<<10)}
	for len(ready) > 0 && open > 0 {
		base := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		var deltas []int32
		for d := first[base]; d >= 0; d = next[d] {
			deltas = append(deltas, d)
		}
		name := in.objects[base].id
		deltas = append(deltas, in.waiting[name]...)
		delete(in.waiting, name)
		if len(deltas) == 0 {
			continue
		}
		if err := in.derive(base, deltas, out); err != nil {
			return err
		}
		open -= len(deltas)
		ready = append(ready, deltas...)
	}
	if open > 0 {
		return errors.New("deltas without a base")
	}
	return out.w.Flush()
}

// derive makes all that is made of one base.
func (in *intake) derive(base int32, deltas []int32, out *appender) error {
	if err := out.w.Flush(); err != nil {
		return err
	}
	b, err := in.base(base, out)
	if err != nil {
		return err
	}
	for _, d := range deltas {
		err := in.apply(base, d, b, out)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("cut off")
		}
		if err != nil {
			return fmt.Errorf("delta at %d: %w", in.objects[d].offset, err)
		}
	}
	return nil
}

// content is the whole of a base: in memory, or in a file.
type content struct {
	mem  []byte
	file *os.File
	at   int64
	size int64
	buf  []byte // to copy through
}

func (s content) copyTo(w io.Writer, from, n int64) error {
	if s.file == nil {
		_, err := w.Write(s.mem[from : from+n])
		return err
	}
	_, err := io.CopyBuffer(w, io.NewSectionReader(s.file, s.at+from, n), s.buf)
	return err
}

func (in *intake) base(at int32, out *appender) (content, error) {
	o := &in.objects[at]
	s := content{size: o.size}
	r, err := in.open(at)
	if err != nil {
		return s, err
	}
	if o.size <= maxBase {
		s.mem = make([]byte, o.size)
		_, err := io.ReadFull(r, s.mem)
		return s, err
	}
	if o.whole < 0 {
		start := out.n
		if _, err := io.CopyN(out, r, o.size); err != nil {
			return s, err
		}
		if err := out.w.Flush(); err != nil {
			return s, err
		}
		o.whole = start
	}
	s.file, s.at, s.buf = in.whole, o.whole, make([]byte, 64<<10)
	return s, nil
}

// apply makes an object of its base (gitformat-pack, "Deltified representation").
func (in *intake) apply(base, delta int32, src content, out *appender) error {
	o := &in.objects[delta]
	r, err := in.open(delta)
	if err != nil {
		return err
	}
	d := bufio.NewReader(io.LimitReader(r, o.size))
	from, err := varint(d)
	if err != nil {
		return err
	}
	to, err := varint(d)
	if err != nil {
		return err
	}
	if from != src.size {
		return errors.New("for another base")
	}
	if in.left -= to; in.left < 0 {
		return errors.New("too much data")
	}
	k := in.objects[base].kind
	start := out.n
	sum := in.format.new()
	fmt.Fprintf(sum, "%s %d\x00", k, to)
	w := &target{w: out, sum: sum, left: to}
	for {
		op, err := d.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = instruct(op, d, src, w)
		}
		if err != nil {
			return err
		}
	}
	if w.left != 0 {
		return errors.New("too short")
	}
	o.kind, o.size, o.whole, o.id = k, to, start, in.format.sum(sum)
	return nil
}

// instruct carries out one instruction: copy from the base, or insert.
func instruct(op byte, d *bufio.Reader, src content, w *target) error {
	if op == 0 {
		return errors.New("instruction 0")
	}
	if op&0x80 == 0 {
		_, err := io.CopyN(w, d, int64(op))
		return err
	}
	var v [7]int64 // bytes of offset (4) and size (3)
	for i := range v {
		if op>>i&1 == 0 {
			continue
		}
		b, err := d.ReadByte()
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		v[i] = int64(b)
	}
	from, n := v[0]|v[1]<<8|v[2]<<16|v[3]<<24, v[4]|v[5]<<8|v[6]<<16
	if n == 0 {
		n = 0x10000
	}
	if from+n > src.size {
		return errors.New("copies from beyond the base")
	}
	return src.copyTo(w, from, n)
}

func varint(r io.ByteReader) (n int64, err error) {
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if shift > 50 {
			return 0, errors.New("size too large")
		}
		n |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, nil
		}
	}
}

// appender writes to the end of a file and knows where that is.
type appender struct {
	w *bufio.Writer
	n int64
}

func (a *appender) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	a.n += int64(n)
	return n, err
}

// target is an object in the making.
type target struct {
	w    io.Writer
	sum  hash.Hash
	left int64
}

func (t *target) Write(b []byte) (int, error) {
	if t.left -= int64(len(b)); t.left < 0 {
		return 0, errors.New("too long")
	}
	t.sum.Write(b)
	return t.w.Write(b)
}
