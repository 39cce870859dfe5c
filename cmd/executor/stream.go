package main

import (
	"bufio"
	"bytes"
	"io"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Open implements request.Outlet. It waits while as many outputs are open as may
// be.
func (c *channel) Open(what request.Output) (request.Stream, error) {
	c.outputs <- struct{}{}
	what.Stream = c.streams.Add(1)
	if err := c.w.WriteJSON(request.FrameOutput, what); err != nil {
		<-c.outputs
		return nil, err
	}
	size := request.MaxChunk
	if what.Size > 0 {
		size = int(min(what.Size, request.MaxChunk))
	}
	to := chunks{c.w, what.Stream}
	return &outputStream{Writer: bufio.NewWriterSize(to, size), to: to, free: func() { <-c.outputs }}, nil
}

// Keep implements request.Outlet.
func (c *channel) Keep(what request.Output) error {
	return c.w.WriteJSON(request.FrameOutput, what)
}

// outputStream is one open output.
type outputStream struct {
	*bufio.Writer
	to   chunks
	free func() // nil: it has ended
}

// ReadFrom fills whole chunks, so that a large blob crosses in few frames.
func (s *outputStream) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{s.Writer}, r, make([]byte, request.MaxChunk))
}

// Commit implements request.Stream.
func (s *outputStream) Commit(digest string) error {
	if err := s.Flush(); err != nil {
		return err
	}
	return s.end(request.OutputEnd{Digest: digest})
}

// Close implements request.Stream.
func (s *outputStream) Close() error {
	if s.free == nil {
		return nil
	}
	return s.end(request.OutputEnd{Dropped: true})
}

func (s *outputStream) end(e request.OutputEnd) error {
	e.Stream = s.to.stream
	defer s.free()
	s.free = nil
	return s.to.w.WriteJSON(request.FrameEnd, e)
}

// chunks writes bytes as chunk frames.
type chunks struct {
	w      *request.Writer
	stream uint32
}

func (c chunks) Write(p []byte) (int, error) {
	r := bytes.NewBuffer(p)
	for r.Len() > 0 {
		if err := c.w.WriteChunk(c.stream, r.Next(request.MaxChunk)); err != nil {
			return len(p) - r.Len(), err
		}
	}
	return len(p), nil
}
