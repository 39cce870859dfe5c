package layer

import (
	"context"
	"hash"
	"io"
	"sync"
)

// A stream between goroutines is cut into chunks, so that unpacking and packing
// keep both ends busy with few switches and a fixed amount of memory.
const (
	chunkSize  = 512 << 10
	chunkCount = 6
)

type chunk struct {
	buf []byte // chunkSize
	n   int
	err error // after the data; io.EOF at the end
}

// ahead reads from r, and hashes what it read, in goroutines of its own.
type ahead struct {
	cancel context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup
	free   chan []byte
	out    chan chunk
	cur    chunk
	rest   []byte
	count  func(n int) error // sees every chunk before it is used
}

// readAhead begins reading r. Close it before r is closed.
func readAhead(ctx context.Context, r io.Reader, h hash.Hash, count func(int) error) *ahead {
	a := &ahead{count: count, free: make(chan []byte, chunkCount), out: make(chan chunk, chunkCount)}
	a.ctx, a.cancel = context.WithCancel(ctx)
	for range chunkCount {
		a.free <- make([]byte, chunkSize)
	}
	raw := a.out
	if h != nil {
		raw = make(chan chunk, chunkCount)
		a.wg.Go(func() { a.hash(raw, h) })
	}
	a.wg.Go(func() { a.read(r, raw) })
	return a
}

func (a *ahead) read(r io.Reader, out chan<- chunk) {
	defer close(out)
	for {
		var c chunk
		select {
		case c.buf = <-a.free:
		case <-a.ctx.Done():
			return
		}
		for c.n < len(c.buf) && c.err == nil {
			var n int
			n, c.err = r.Read(c.buf[c.n:])
			c.n += n
		}
		out <- c // has room for all chunks
		if c.err != nil {
			return
		}
	}
}

func (a *ahead) hash(in <-chan chunk, h hash.Hash) {
	defer close(a.out)
	for c := range in {
		h.Write(c.buf[:c.n])
		a.out <- c
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf
			a.cur = chunk{}
		}
		if err := a.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) next() error {
	select {
	case c, ok := <-a.out:
		switch {
		case !ok:
			a.cur.err = a.ctx.Err()
		default:
			a.cur, a.rest = c, c.buf[:c.n]
			if err := a.count(c.n); err != nil {
				a.cur.err, a.rest = err, nil
			}
		}
	case <-a.ctx.Done():
		a.cur.err = a.ctx.Err()
	}
	if len(a.rest) > 0 {
		return nil
	}
	return a.cur.err
}

// failure is the error in which the stream itself has ended, other than io.EOF.
func (a *ahead) failure() error {
	if a.cur.err == io.EOF || len(a.rest) > 0 {
		return nil
	}
	return a.cur.err
}

// Close stops the goroutines and waits for them. The hash is complete when Read
// has returned io.EOF before.
func (a *ahead) Close() {
	a.cancel()
	a.wg.Wait()
}
