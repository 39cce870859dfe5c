package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// httpConn speaks to git-upload-pack through a web server (gitprotocol-http).
type httpConn struct {
	client  *Client
	base    *url.URL
	home    *url.URL // base, before the server led elsewhere
	header  string   // Authorization, for home's host; empty: none
	closers []func()
}

func (h *httpConn) greet(ctx context.Context) (*lines, error) {
	at := h.join("/info/refs")
	at.RawQuery = "service=git-upload-pack"
	resp, err := h.do(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); t != "application/x-git-upload-pack-advertisement" {
		return nil, errors.New("the server does not speak git's smart HTTP protocol")
	}
	// Requests go where the server has led to.
	if final := resp.Request.URL; strings.HasSuffix(final.Path, "/info/refs") {
		u := *final
		u.RawQuery, u.RawPath = "", ""
		u.Path = strings.TrimSuffix(u.Path, "/info/refs")
		h.base = &u
	}
	return newLines(io.LimitReader(resp.Body, maxGreeting)), nil
}

func (h *httpConn) ask(ctx context.Context, request []byte) (*lines, error) {
	resp, err := h.do(ctx, http.MethodPost, h.join("/git-upload-pack"), request)
	if err != nil {
		return nil, err
	}
	return newLines(resp.Body), nil
}

func (h *httpConn) join(what string) *url.URL {
	u := *h.base
	u.Path = strings.TrimSuffix(u.Path, "/") + what
	u.RawPath = ""
	return &u
}

// do sends a request. The body of the answer is closed when the conversation is.
func (h *httpConn) do(ctx context.Context, method string, u *url.URL, body []byte) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	h.closers = append(h.closers, func() { cancel(nil) })
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("invalid URL of a git repository")
	}
	req.Header.Set("User-Agent", "git/"+h.client.cfg.HTTP.UserAgent)
	req.Header.Set("Git-Protocol", "version=2")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if h.header != "" && u.Host == h.home.Host && (u.Scheme == h.home.Scheme || u.Scheme == "https") {
		req.Header.Set("Authorization", h.header)
	}
	resp, err := h.client.http.Do(req)
	if err != nil {
		var wrapped *url.Error // repeats the URL, with the password
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, err
	}
	p := buildcontext.NewPatient(resp.Body, h.client.stall, cancel)
	h.closers = append(h.closers, func() { p.Stop(); resp.Body.Close() })
	resp.Body = io.NopCloser(&bodyReader{r: p, ctx: ctx})
	return resp, checkStatus(resp)
}

func checkStatus(resp *http.Response) error {
	switch code := resp.StatusCode; code {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("authentication failed (status %d): offer a secret GIT_AUTH_TOKEN or GIT_AUTH_HEADER", code)
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("repository not found (status %d)", code)
	default:
		return fmt.Errorf("the server answered with status %d", code)
	}
}

func (h *httpConn) close() string {
	for _, c := range h.closers {
		c()
	}
	h.closers = nil
	return ""
}

// bodyReader says why a read was given up.
type bodyReader struct {
	r   io.Reader
	ctx context.Context
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// newHTTPClient follows redirects of the first request only, as git does, and
// takes the credential along to the same host only.
func newHTTPClient(cfg Config) (*http.Client, error) {
	t, err := buildcontext.NewTransport(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if via[0].Method != http.MethodGet {
			return http.ErrUseLastResponse
		}
		return buildcontext.CheckRedirect(req, via)
	}}, nil
}
