package hostile

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
)

// maxKept is how much of a request's body is remembered, in bytes.
const maxKept = 64 << 10

// Server is an HTTP server that answers by rules and remembers every request.
type Server struct {
	Addr string // host:port
	URL  string // http(s)://Addr

	back http.Handler
	mu   sync.Mutex
	all  []*Rule
	seen []Request
}

// Rule is what a server does to some requests, instead of what it does else.
type Rule struct {
	Method string // empty: any
	Path   string // the path contains it; empty: any
	Skip   int    // lets that many pass first
	Times  int    // how often; 0: for ever
	Do     http.HandlerFunc
}

// Request is one that came.
type Request struct {
	Method, Host, URI string
	Header            http.Header
	Body              []byte // its beginning
}

// Options are what a Server is like. The zero value listens on 127.0.0.1, speaks
// plain HTTP and knows nothing.
type Options struct {
	Listener net.Listener
	TLS      *registrytest.CA // speaks TLS, as localhost, 127.0.0.1 and Names
	Names    []string
	Back     http.Handler // answers where no rule does; nil: 404
}

// Serve starts a server that ends with the test.
func Serve(t testing.TB, o Options, rules ...Rule) *Server {
	t.Helper()
	s := &Server{back: o.Back}
	if s.back == nil {
		s.back = http.NotFoundHandler()
	}
	s.On(rules...)
	server := httptest.NewUnstartedServer(s)
	if o.Listener != nil {
		server.Listener.Close()
		server.Listener = o.Listener
	}
	server.Config.ErrorLog = nil
	s.Addr = server.Listener.Addr().String()
	s.URL = "http://" + s.Addr
	if o.TLS != nil {
		cert, key := o.TLS.Leaf(t, o.Names...)
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		s.URL = "https://" + s.Addr
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return s
}

// On adds rules; of several that fit the first one counts.
func (s *Server) On(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		s.all = append(s.all, &r)
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head, _ := io.ReadAll(io.LimitReader(r.Body, maxKept)) // what is cut off is the client's affair
	rest := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), rest}
	if do := s.rule(r, head); do != nil {
		do(w, r)
		return
	}
	s.back.ServeHTTP(w, r)
}

func (s *Server) rule(r *http.Request, body []byte) http.HandlerFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, Request{r.Method, r.Host, r.RequestURI, r.Header.Clone(), body})
	for i, rule := range s.all {
		if rule.Method != "" && rule.Method != r.Method || !strings.Contains(r.URL.Path, rule.Path) {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		if rule.Times == 1 {
			s.all = slices.Delete(s.all, i, i+1)
		}
		rule.Times--
		return rule.Do
	}
	return nil
}

// Asked counts the requests so far with method (empty: any) whose path and
// query contain part.
func (s *Server) Asked(method, part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.seen {
		if (method == "" || r.Method == method) && strings.Contains(r.URI, part) {
			n++
		}
	}
	return n
}

// Told lists the requests so far that hold one of the secrets, plain or in an
// encoding that a protocol has.
func (s *Server) Told(secrets ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.seen {
		text := r.text()
		if slices.ContainsFunc(secrets, func(secret string) bool { return holds(text, secret) }) {
			out = append(out, r.Method+" "+r.Host+r.URI)
		}
	}
	return out
}

// text is all of the request.
func (r Request) text() string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.Host + r.URI + "\n")
	_ = r.Header.Write(&b) // a strings.Builder takes everything
	b.Write(r.Body)
	return b.String()
}

// holds tells whether text has secret, plain, in base64, with a user's name
// before it as Basic credentials have it too, in hex or escaped as in a query.
func holds(text, secret string) bool {
	for _, form := range []string{secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret))} {
		if strings.Contains(text, form) {
			return true
		}
	}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \r\n\t\"&,;:?", r) }) {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding, base64.URLEncoding} {
			if b, err := e.DecodeString(word); err == nil && bytes.Contains(b, []byte(secret)) {
				return true
			}
		}
	}
	return false
}

// Answer is a status, headers and a body.
func Answer(status int, header http.Header, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = w.Write(body) // to a client that may have gone
	}
}

// Redirect sends the client to base, with the path and query of the request.
func Redirect(status int, base string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, base+r.URL.RequestURI(), status)
	}
}

// Endless sends a body without an end, of so many bytes at most, as part repeated.
func Endless(header http.Header, part []byte, most int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(http.StatusOK)
		for sent := 0; sent < most; sent += len(part) {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}
}
