package request

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// FrameKind is the first byte of a frame.
type FrameKind byte

const (
	FrameHello  FrameKind = 'H' // executor: Posture as JSON, the first frame; Go answers it
	FrameEvent  FrameKind = 'E' // executor: Event as JSON
	FrameAsk    FrameKind = 'Q' // executor: Ask as JSON
	FrameOutput FrameKind = 'O' // executor: Output as JSON; chunks follow
	FrameChunk  FrameKind = 'C' // executor: raw bytes of the open output
	FrameEnd    FrameKind = 'Z' // executor: the open output is complete
	FrameResult FrameKind = 'R' // executor: Result as JSON, the last frame
	FrameGo     FrameKind = 'G' // launcher: the walls stand, the build may begin
	FrameAnswer FrameKind = 'A' // launcher: Answer as JSON
	FrameCancel FrameKind = 'X' // launcher: stop now
)

// MaxFrame is the largest payload of a frame, in bytes. A larger length is an
// error before any memory is taken.
const MaxFrame = 1 << 20

// ErrFrame is wrapped by every error about the form of a frame.
var ErrFrame = errors.New("malformed frame")

// A frame is kind (1 byte), length of the payload (4 bytes, big endian),
// payload.
const frameHeader = 5

// Writer writes frames. It is safe for concurrent use; a frame is written
// whole.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes one frame.
func (w *Writer) Write(kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("%w: payload of %d bytes", ErrFrame, len(payload))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var h [frameHeader]byte
	h[0] = byte(kind)
	binary.BigEndian.PutUint32(h[1:], uint32(len(payload)))
	if _, err := w.w.Write(append(h[:], payload...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// WriteJSON writes v as the payload of one frame.
func (w *Writer) WriteJSON(kind FrameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame %q: %w", kind, err)
	}
	return w.Write(kind, b)
}

// Reader reads frames from a side that is not trusted.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next reads one frame. The payload is valid until the next call. At the end
// of the stream between two frames the error is io.EOF, inside a frame
// io.ErrUnexpectedEOF.
func (r *Reader) Next() (FrameKind, []byte, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return 0, nil, err
	}
	kind := FrameKind(h[0])
	if !kind.known() {
		return 0, nil, fmt.Errorf("%w: unknown kind %#x", ErrFrame, h[0])
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("%w: %c announces %d bytes", ErrFrame, kind, n)
	}
	if cap(r.buf) < int(n) {
		r.buf = make([]byte, n)
	}
	p := r.buf[:n]
	if _, err := io.ReadFull(r.r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, p, nil
}

func (k FrameKind) known() bool {
	switch k {
	case FrameHello, FrameEvent, FrameAsk, FrameOutput, FrameChunk, FrameEnd, FrameResult,
		FrameGo, FrameAnswer, FrameCancel:
		return true
	}
	return false
}

// Decode decodes the JSON payload of a frame into v.
func Decode(kind FrameKind, payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %c: %w", ErrFrame, kind, err)
	}
	return nil
}
