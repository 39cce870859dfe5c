package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// maxDownload is the largest body of a URL if HTTPConfig does not say, in
	// bytes.
	maxDownload = 16 << 30
	// stallTimeout ends a download from which nothing has come for so long.
	stallTimeout = 2 * time.Minute
	maxRedirects = 10
	copyBuffer   = 256 << 10
)

// HTTPConfig is how URLs are fetched.
type HTTPConfig struct {
	// Roots are the CA certificates to trust, in PEM; empty: the system's.
	Roots     []byte
	UserAgent string
	// Proxy chooses a proxy; nil: none.
	Proxy func(*http.Request) (*url.URL, error)
	// Gateway is the way to the host's loopback; zero: there is none.
	Gateway request.Gateway
	// MaxBytes bounds one body; 0: 16 GiB.
	MaxBytes int64
	// Secret returns a secret, ok is false if there is none of that id; nil:
	// there are none.
	Secret func(ctx context.Context, id string) (data []byte, ok bool, err error)
}

// HTTP fetches the URLs of ADD. It is safe for concurrent use.
type HTTP struct {
	client *http.Client
	cfg    HTTPConfig
	max    int64
	stall  time.Duration
}

// NewHTTP fails if the certificates cannot be read.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	t, err := NewTransport(cfg)
	if err != nil {
		return nil, err
	}
	h := &HTTP{cfg: cfg, max: cfg.MaxBytes, stall: stallTimeout}
	if h.max == 0 {
		h.max = maxDownload
	}
	h.client = &http.Client{Transport: t, CheckRedirect: CheckRedirect}
	return h, nil
}

// CheckRedirect is the policy for redirects, as http.Client takes it: a few, to
// web servers, and with the credential to the same host only.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	// It would tell the next host the query, which may be a signature.
	req.Header.Del("Referer")
	if first := via[0].URL; req.URL.Host != first.Host || req.URL.Scheme != first.Scheme && req.URL.Scheme != "https" {
		req.Header.Del("Authorization")
	}
	return checkScheme(req.URL)
}

// Shown is a URL without what may be a credential: the password, and for web
// servers the user's name too, where tokens stand, and what the query says,
// which may be a signature that opens a file to everybody.
func Shown(u *url.URL) string {
	plain := *u
	if u.Scheme == "http" || u.Scheme == "https" {
		plain.RawQuery = shownQuery(u.RawQuery)
		if u.User != nil {
			plain.User = url.UserPassword("xxxxx", "xxxxx")
		}
	}
	return plain.Redacted()
}

// ShownText is Shown of what may be no URL: then it tells the scheme at most.
func ShownText(text string) string {
	u, err := url.Parse(text)
	if err == nil {
		return Shown(u)
	}
	scheme, _, _ := strings.Cut(text, "://")
	return scheme + "://"
}

// shownQuery hides all values of a query but those that say what is wanted of a
// git repository.
func shownQuery(query string) string {
	if query == "" {
		return ""
	}
	git := []string{"ref", "tag", "branch", "commit", "checksum", "subdir", "submodules", "keep-git-dir", "fetch-by-commit", "mtime"}
	var shown []string
	for pair := range strings.SplitSeq(query, "&") {
		if key, _, _ := strings.Cut(pair, "="); !slices.Contains(git, key) {
			pair = key + "=xxxxx"
		}
		shown = append(shown, pair)
	}
	return strings.Join(shown, "&")
}

func checkScheme(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("scheme %q: only http and https are downloaded", u.Scheme)
	}
	return nil
}

// Download writes the body found at rawURL to w and returns the time of its last
// modification, or zero if the server does not say. A status other than success
// is an error with the number in it, worded as BuildKit does. Errors show no
// credentials of the URL.
func (h *HTTP) Download(ctx context.Context, rawURL string, w io.Writer) (modified time.Time, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// url.Error repeats the text, which may hold a password.
		return modified, errors.New("download: invalid URL")
	}
	if err := checkScheme(u); err != nil {
		return modified, fmt.Errorf("download %s: %w", Shown(u), err)
	}
	modified, err = h.get(ctx, u, w)
	if err != nil {
		return modified, fmt.Errorf("download %s: %w", Shown(u), err)
	}
	return modified, nil
}

func (h *HTTP) get(ctx context.Context, u *url.URL, w io.Writer) (modified time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return modified, err
	}
	req.Header.Set("User-Agent", h.cfg.UserAgent)
	header, err := h.cfg.authorization(ctx, u)
	if err != nil {
		return modified, err
	}
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return modified, h.cfg.plain(req, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return modified, fmt.Errorf("invalid response status %d", resp.StatusCode)
	}
	body := NewPatient(io.LimitReader(resp.Body, h.max+1), h.stall, cancel)
	defer body.Stop()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, body, make([]byte, copyBuffer))
	switch {
	case err != nil && ctx.Err() != nil:
		return modified, context.Cause(ctx)
	case err != nil:
		return modified, err
	case n > h.max:
		return modified, fmt.Errorf("exceeds %d bytes", h.max)
	}
	modified, err = http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		return time.Time{}, nil
	}
	return modified, nil
}

// plain takes off the method and URL that the client wraps its errors in, and
// names the proxy where that is what could not be reached.
func (c HTTPConfig) plain(req *http.Request, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "proxyconnect" {
		return err
	}
	name := ""
	if proxy, err := c.Proxy(req); err == nil && proxy != nil {
		name = " " + proxy.Host
	}
	return fmt.Errorf("the proxy%s of HTTP_PROXY or HTTPS_PROXY: %w", name, op.Err)
}
