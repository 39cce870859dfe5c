package registrytest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is what a proxy does to requests instead of passing them on.
type Fault struct {
	Method string // empty: any
	Path   string // the path contains it; empty: any
	Skip   int    // lets that many pass first
	Times  int    // how often; 0: for ever

	// One of these:
	Status    int           // answers it, with Header and Body
	Reset     bool          // breaks the connection
	Truncate  int64         // passes so many bytes of the answer's body, then breaks the connection
	Hang      int64         // passes so many bytes of the answer's body, then nothing more
	Short     int64         // passes so many bytes of the answer's body as if they were all
	Corrupt   bool          // changes a byte in the middle of the body
	Redirect  string        // redirects (307) to this URL with the path and query of the request
	Delay     time.Duration // waits before it passes the request on
	Unchunked bool          // passes the answer without a length
	Type      string        // passes the answer with this Content-Type

	Header http.Header
	Body   string
}

// Seen is a request that came by.
type Seen struct {
	Method, Path, Query, Authorization, UserAgent, Range string
}

// Proxy is a registry's front that can fail.
type Proxy struct {
	Addr string // 127.0.0.1:port
	URL  string

	back *httputil.ReverseProxy
	over chan struct{} // closed when the test ends
	mu   sync.Mutex
	all  []*Fault
	seen []Seen
}

// StartProxy starts a proxy before the registry at target (an URL), or before
// none if that is empty, with faults, which apply in their order. It ends with
// the test. ca may be nil: then it speaks plain HTTP.
func StartProxy(t testing.TB, target string, ca *CA, faults ...Fault) *Proxy {
	t.Helper()
	p := &Proxy{over: make(chan struct{})}
	if target != "" {
		p.back = back(t, target)
	}
	p.Fail(faults...)
	server := httptest.NewUnstartedServer(p)
	if ca != nil {
		cert, key := ca.Leaf(t)
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		close(p.over)
		server.CloseClientConnections()
		server.Close()
	})
	p.URL = server.URL
	p.Addr = server.Listener.Addr().String()
	return p
}

func back(t testing.TB, target string) *httputil.ReverseProxy {
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1,
		Transport:     &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
}

// Fail adds faults.
func (p *Proxy) Fail(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range faults {
		p.all = append(p.all, &f)
	}
}

// Heal removes all faults.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = nil
}

// Seen are the requests so far that have method (empty: any) and whose path
// contains path.
func (p *Proxy) Seen(method, path string) []Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Seen
	for _, s := range p.seen {
		if (method == "" || s.Method == method) && strings.Contains(s.Path, path) {
			out = append(out, s)
		}
	}
	return out
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.fault(r)
	switch {
	case f == nil:
		p.pass(w, r)
	case f.Reset:
		reset(w)
	case f.Redirect != "":
		http.Redirect(w, r, f.Redirect+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	case f.Status != 0:
		io.Copy(io.Discard, r.Body)
		for k, v := range f.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Body)
	case f.Delay > 0:
		select {
		case <-time.After(f.Delay):
			p.pass(w, r)
		case <-r.Context().Done():
		case <-p.over: // an unread body hides from a server that its client is gone
		}
	default:
		b := &bender{ResponseWriter: w, f: f, req: r, over: p.over}
		p.pass(b, r)
		b.end()
	}
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request) {
	if p.back == nil {
		http.NotFound(w, r)
		return
	}
	p.back.ServeHTTP(w, r)
}

func (p *Proxy) fault(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, Seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.UserAgent(), r.Header.Get("Range")})
	for i, f := range p.all {
		if f.Method != "" && f.Method != r.Method || !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times == 1 {
			p.all = append(p.all[:i:i], p.all[i+1:]...)
		}
		f.Times--
		return f
	}
	return nil
}

// reset breaks the connection with RST.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// bender changes the answer's body.
type bender struct {
	http.ResponseWriter
	f    *Fault
	req  *http.Request
	over chan struct{}
	size int64
	n    int64
}

// WriteHeader implements http.ResponseWriter.
func (b *bender) WriteHeader(code int) {
	h := b.Header()
	fmt.Sscan(h.Get("Content-Length"), &b.size)
	if b.f.Short > 0 {
		h.Set("Content-Length", fmt.Sprint(b.f.Short))
	}
	if b.f.Unchunked {
		h.Del("Content-Length")
		h.Set("Transfer-Encoding", "identity")
	}
	if b.f.Type != "" {
		h.Set("Content-Type", b.f.Type)
	}
	b.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (b *bender) Write(p []byte) (int, error) {
	at := b.n
	b.n += int64(len(p))
	switch f := b.f; {
	case f.Truncate > 0 && b.n > f.Truncate:
		b.ResponseWriter.Write(p[:max(0, f.Truncate-at)])
		return 0, http.ErrAbortHandler
	case f.Hang > 0 && b.n > f.Hang:
		b.ResponseWriter.Write(p[:max(0, f.Hang-at)])
		http.NewResponseController(b.ResponseWriter).Flush()
		select {
		case <-b.req.Context().Done():
		case <-b.over:
		}
		return 0, http.ErrAbortHandler
	case f.Short > 0 && b.n > f.Short:
		b.ResponseWriter.Write(p[:max(0, f.Short-at)])
		return len(p), nil
	case f.Corrupt && at <= b.size/2 && b.size/2 < b.n:
		p = append([]byte(nil), p...)
		p[b.size/2-at] ^= 1
	}
	return b.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush.
func (b *bender) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// end breaks the connection of a truncated answer.
func (b *bender) end() {
	if b.f.Truncate > 0 || b.f.Hang > 0 {
		panic(http.ErrAbortHandler)
	}
}
