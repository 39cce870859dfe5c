package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// streamConn speaks to git-upload-pack over one connection, from the greeting to
// the end.
type streamConn struct {
	lines *lines
	w     io.Writer
	// end closes the connection and returns what the server had to say beside
	// the protocol.
	end func() string
}

func (s *streamConn) greet(context.Context) (*lines, error) { return s.lines, nil }

func (s *streamConn) ask(_ context.Context, request []byte) (*lines, error) {
	_, err := s.w.Write(request)
	return s.lines, err
}

func (s *streamConn) close() string { return s.end() }

// dial connects to a host. The connection ends with ctx, or when nothing has
// come for a while.
func (v *visit) dial(ctx context.Context, u *url.URL, port string) (net.Conn, error) {
	if p := u.Port(); p != "" {
		port = p
	}
	c, err := v.cfg.HTTP.Dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	p := &patientConn{Conn: c, ctx: ctx, limit: v.stall, since: time.Now()}
	p.stop = context.AfterFunc(ctx, func() { c.Close() })
	return p, nil
}

// patientConn gives up on a server that has gone silent, or does not keep pace.
type patientConn struct {
	net.Conn
	ctx   context.Context
	limit time.Duration
	stop  func() bool
	since time.Time // when the pace was last measured
	got   int       // bytes since
}

func (p *patientConn) Read(b []byte) (int, error) {
	if err := p.Conn.SetReadDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, p.why(err)
	}
	n, err := p.Conn.Read(b)
	if p.got += n; p.got >= buildcontext.PaceBytes {
		p.got, p.since = 0, time.Now()
	}
	if err == nil && time.Since(p.since) > buildcontext.PaceTimes*p.limit {
		return n, buildcontext.Slow(p.limit)
	}
	return n, p.why(err)
}

func (p *patientConn) Write(b []byte) (int, error) {
	if err := p.Conn.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, p.why(err)
	}
	n, err := p.Conn.Write(b)
	return n, p.why(err)
}

func (p *patientConn) why(err error) error {
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case errors.As(err, &timeout) && timeout.Timeout():
		return buildcontext.Silent(p.limit)
	}
	return err
}

func (p *patientConn) Close() error {
	p.stop()
	return p.Conn.Close()
}

// connectDaemon speaks to git daemon (gitprotocol-pack, "Git Transport").
func (v *visit) connectDaemon(ctx context.Context, u *url.URL) (conn, error) {
	c, err := v.dial(ctx, u, "9418")
	if err != nil {
		return nil, err
	}
	request := fmt.Sprintf("git-upload-pack %s\x00host=%s\x00\x00version=2\x00", remotePath(u), u.Host)
	if _, err := fmt.Fprintf(c, "%04x%s", len(request)+4, request); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &streamConn{lines: newLines(c), w: c, end: func() string { c.Close(); return "" }}, nil
}
