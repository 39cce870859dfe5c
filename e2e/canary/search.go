package canary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Search looks for canaries in bytes.
type Search struct {
	byStart map[uint32][]form
	// starts has a bit for the hash of each form's first four bytes.
	starts  [1 << 16 / 64]uint64
	longest int
	buffers sync.Pool
}

type form struct {
	text []byte
	hit  Hit
}

// Hit is a canary in one of its forms.
type Hit struct{ Canary, Form string }

// NewSearch looks for canaries in all their forms.
func NewSearch(canaries ...Canary) *Search {
	s := &Search{byStart: map[uint32][]form{}}
	for _, c := range canaries {
		for name, text := range c.Forms() {
			start := binary.LittleEndian.Uint32(text)
			s.byStart[start] = append(s.byStart[start], form{text, Hit{c.Name, name}})
			s.starts[hash(start)/64] |= 1 << (hash(start) % 64)
			s.longest = max(s.longest, len(text))
		}
	}
	return s
}

func hash(word uint32) uint32 { return word * 0x9e3779b1 >> 16 }

// Hits are what was found, with how often.
type Hits map[Hit]int

// Of are the forms in which a canary was found.
func (h Hits) Of(canary string) []string {
	var forms []string
	for hit := range h {
		if hit.Canary == canary {
			forms = append(forms, hit.Form)
		}
	}
	slices.Sort(forms)
	return forms
}

// String tells what was found.
func (h Hits) String() string {
	var out []string
	for hit, n := range h {
		out = append(out, fmt.Sprintf("%s (%s, %d times)", hit.Canary, hit.Form, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// Add adds other hits.
func (h Hits) Add(other Hits) {
	for hit, n := range other {
		h[hit] += n
	}
}

const block = 1 << 20

// In reads all of r. Of an error it returns what was found before.
func (s *Search) In(r io.Reader) (Hits, int64, error) {
	hits, total := Hits{}, int64(0)
	space, _ := s.buffers.Get().(*[]byte)
	if space == nil {
		made := make([]byte, s.longest+block)
		space = &made
	}
	defer s.buffers.Put(space)
	buf := *space
	kept := 0 // bytes from before
	for {
		n, err := fill(r, buf[kept:kept+block])
		total += int64(n)
		text := buf[:kept+n]
		last := err != nil
		end := len(text) - s.longest + 1
		if last {
			end = len(text)
		}
		s.look(text, max(end, 0), hits)
		if last {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return hits, total, err
		}
		kept = copy(buf, text[max(end, 0):])
	}
}

// fill reads until buf is full or there is an error. Unlike io.ReadFull it keeps
// the end of r apart from what r says of an early one.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

var zeros = make([]byte, 4096)

// look counts the forms that begin before end.
func (s *Search) look(text []byte, end int, hits Hits) {
	for i := 0; i < end && i+4 <= len(text); i++ {
		if text[i] == 0 && i+len(zeros) <= len(text) && bytes.Equal(text[i:i+len(zeros)], zeros) {
			i += len(zeros) - 4 // no form begins with four zero bytes
			continue
		}
		start := binary.LittleEndian.Uint32(text[i:])
		if h := hash(start); s.starts[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, f := range s.byStart[start] {
			if bytes.HasPrefix(text[i:], f.text) {
				hits[f.hit]++
			}
		}
	}
}

// names are the canaries that were found.
func (h Hits) names() []string {
	found := map[string]bool{}
	for hit := range h {
		found[hit.Canary] = true
	}
	return slices.Sorted(maps.Keys(found))
}
