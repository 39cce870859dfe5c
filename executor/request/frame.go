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
	FrameChunk  FrameKind = 'C' // executor: the number of an open stream in four bytes, big endian, then raw bytes of it
	FrameEnd    FrameKind = 'Z' // executor: OutputEnd as JSON
	FrameReady  FrameKind = 'Y' // push: the destinations take it; where is the image?
	FrameResult FrameKind = 'R' // executor: Result as JSON, the last frame
	FrameGo     FrameKind = 'G' // launcher: Go as JSON: the walls stand, the role may begin
	FrameAhead  FrameKind = 'B' // launcher, to push: Descriptor as JSON, without type: a blob that the image will have is there
	FramePush   FrameKind = 'P' // launcher, to push: Descriptor as JSON: the image is there, push it
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
	mu  sync.Mutex
	w   io.Writer
	buf []byte // header and payload of the last frame, to be used again
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes one frame.
func (w *Writer) Write(kind FrameKind, payload []byte) error { return w.write(kind, nil, payload) }

// WriteChunk writes bytes of a stream, at most MaxChunk.
func (w *Writer) WriteChunk(stream uint32, p []byte) error {
	return w.write(FrameChunk, binary.BigEndian.AppendUint32(nil, stream), p)
}

func (w *Writer) write(kind FrameKind, head, payload []byte) error {
	n := len(head) + len(payload)
	if n > MaxFrame {
		return fmt.Errorf("%w: payload of %d bytes", ErrFrame, n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = binary.BigEndian.AppendUint32(append(w.buf[:0], byte(kind)), uint32(n))
	w.buf = append(append(w.buf, head...), payload...)
	if _, err := w.w.Write(w.buf); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// MaxChunk is the most bytes of a stream in one frame.
const MaxChunk = MaxFrame - streamHeader

const streamHeader = 4

// Chunk takes the payload of FrameChunk apart.
func Chunk(payload []byte) (stream uint32, p []byte, err error) {
	if len(payload) < streamHeader {
		return 0, nil, fmt.Errorf("%w: %c of %d bytes", ErrFrame, FrameChunk, len(payload))
	}
	return binary.BigEndian.Uint32(payload), payload[streamHeader:], nil
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
	case FrameHello, FrameEvent, FrameAsk, FrameOutput, FrameChunk, FrameEnd, FrameReady, FrameResult,
		FrameGo, FrameAhead, FramePush, FrameAnswer, FrameCancel:
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
