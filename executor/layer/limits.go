package layer

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrInvalid is wrapped when an archive, or a directory that should become one,
// breaks a rule: a path that leads out, a link to nothing, a damaged stream.
var ErrInvalid = errors.New("invalid archive")

// ErrLimit is wrapped when an archive is larger than Limits allow.
var ErrLimit = errors.New("archive exceeds a limit")

// Limits bound what one archive may expand to. The zero value of a field stands
// for its default.
type Limits struct {
	// Bytes is the largest size in bytes of the uncompressed archive, and of
	// all its files together, holes included. Default: 256 GiB.
	Bytes int64
	// Entries is the largest number of entries. Default: 4 million.
	Entries int64
	// Ratio is how many times larger than the compressed archive the
	// uncompressed one may be; the first GiB is free. Default: 1200, a little
	// over what gzip can reach.
	Ratio int64
	// PathLen is the longest name in bytes. Default: 4096, as in Linux.
	PathLen int
}

const (
	freeBytes = 1 << 30 // what Ratio does not apply to
	// maxDepth is how many directories may be nested. It bounds the number of
	// files open at once while a tree is walked.
	maxDepth = 1000
)

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 256 << 30
	}
	if l.Entries == 0 {
		l.Entries = 4 << 20
	}
	if l.Ratio == 0 {
		l.Ratio = 1200
	}
	if l.PathLen == 0 {
		l.PathLen = 4096
	}
	return l
}

// meter counts what an archive expands to. The packed count is written by
// another goroutine.
type meter struct {
	lim      Limits
	packed   atomic.Int64 // compressed bytes read
	stream   int64        // uncompressed bytes read
	contents int64        // bytes of files, holes included
	entries  int64
}

func (m *meter) read(n int) error {
	m.stream += int64(n)
	if m.stream > m.lim.Bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, m.lim.Bytes)
	}
	if m.stream > freeBytes && m.stream/m.lim.Ratio >= m.packed.Load() {
		return fmt.Errorf("%w: expands more than %d times", ErrLimit, m.lim.Ratio)
	}
	return nil
}

func (m *meter) entry(size int64) error {
	m.entries++
	if m.entries > m.lim.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, m.lim.Entries)
	}
	return m.file(size)
}

func (m *meter) file(size int64) error {
	if size < 0 || size > m.lim.Bytes-m.contents {
		return fmt.Errorf("%w: files of more than %d bytes together", ErrLimit, m.lim.Bytes)
	}
	m.contents += size
	return nil
}
