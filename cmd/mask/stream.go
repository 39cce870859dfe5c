package mask

import "strings"

// Stream masks text that comes in pieces, however values are cut. It is not safe
// for concurrent use.
type Stream struct {
	values *Values
	// held is the end of what came, where a value may have begun: less than
	// gramSize bytes of one line. The first covered bytes belong to one.
	held    []byte
	covered int
	// open tells that Mask was written last, for a value that may go on.
	open bool
	out  []byte
}

// Stream returns a Stream that masks v.
func (v *Values) Stream() *Stream { return &Stream{values: v} }

// Write takes a piece and returns what may be shown now, valid until the next
// call. What is held back is a few bytes of a line that has not ended.
func (s *Stream) Write(p []byte) []byte { return s.take(p, false) }

// Close returns what was held back.
func (s *Stream) Close() []byte { return s.take(nil, true) }

func (s *Stream) take(p []byte, last bool) []byte {
	if s.values == nil {
		return p
	}
	s.values.mu.RLock()
	defer s.values.mu.RUnlock()
	if len(s.values.sizes) == 0 && len(s.held) == 0 {
		return p
	}
	text := append(s.held, p...)
	keep := len(text)
	if !last {
		keep = s.values.undecided(text)
	}
	s.out = s.out[:0]
	end := s.covered // what is before it belongs to a value
	from := 0        // what is before it was written
	for i := 0; i < keep; i++ {
		if !s.values.begins(text[i:]) {
			continue
		}
		n := s.values.match(text[i:])
		if n == 0 || i+n <= end {
			continue
		}
		if i > end {
			from = s.write(text, from, end, i)
		}
		end = i + n
	}
	s.write(text, from, min(end, keep), keep)
	s.held = append(s.held[:0], text[keep:]...)
	s.covered = max(end-keep, 0)
	return s.out
}

// write writes text[from:to], of which what is before end belongs to a value.
func (s *Stream) write(text []byte, from, end, to int) int {
	if end > from && !s.open {
		s.out = append(s.out, Mask...)
		s.open = true
	}
	from = max(from, end)
	if to > from {
		s.out = append(s.out, text[from:to]...)
		s.open = false
	}
	return to
}

// undecided is where the end of text begins that may be the begin of a value:
// no value has a newline.
func (v *Values) undecided(text []byte) int {
	at := max(len(text)-gramSize+1, 0)
	for i := len(text) - 1; i >= at; i-- {
		if text[i] == '\n' || text[i] == '\r' {
			at = i + 1
			break
		}
	}
	for ; at < len(text); at++ {
		if v.begins(text[at:]) {
			return at
		}
	}
	return at
}

// Text masks a whole text.
func (v *Values) Text(text string) string {
	if v == nil || text == "" {
		return text
	}
	v.mu.RLock()
	none := len(v.sizes) == 0
	v.mu.RUnlock()
	if none {
		return text
	}
	s := v.Stream()
	var out strings.Builder
	out.Write(s.Write([]byte(text)))
	out.Write(s.Close())
	return out.String()
}
