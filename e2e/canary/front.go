package canary

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Front is a proxy before a registry, or before nothing, that can hold a request
// until it is let go: meanwhile who asked stands still, with all that it has.
type Front struct {
	Host  string // 127.0.0.1:port, plain HTTP
	back  http.Handler
	token *Tokens // nil: credentials are the registry's to check

	mu   sync.Mutex
	held *Held
	over chan struct{}
}

// Held is a request that waits, once it is there.
type Held struct {
	method, path string
	Arrived      chan struct{}
	release      chan struct{}
}

// Release lets the request go, and those that come later.
func (h *Held) Release() { close(h.release) }

// Tokens is what a token server takes and gives (distribution-spec's token
// authentication with OAuth2).
type Tokens struct {
	Identity Canary // in config.json
	Bearer   Canary // that the sandbox gets for it
}

// StartFront starts a proxy before the registry at target (an URL), or before
// nothing (""), which ends with the test. With tokens it wants a token and is the
// token server too.
func StartFront(t testing.TB, target string, tokens *Tokens) *Front {
	t.Helper()
	f := &Front{token: tokens, over: make(chan struct{}), back: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	if target != "" {
		f.back = proxy(t, target, tokens != nil)
	}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		close(f.over)
		server.CloseClientConnections()
		server.Close()
	})
	f.Host = server.Listener.Addr().String()
	return f
}

func proxy(t testing.TB, target string, open bool) *httputil.ReverseProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host
		if open {
			r.Out.Header.Del("Authorization")
		}
	}}
}

// Hold holds the next request with this method and a path that contains path.
func (f *Front) Hold(method, path string) *Held {
	h := &Held{method: method, path: path, Arrived: make(chan struct{}), release: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = h
	return h
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.token != nil && !f.token.admits(w, r) {
		return
	}
	f.mu.Lock()
	h := f.held
	if h != nil && h.method == r.Method && strings.Contains(r.URL.Path, h.path) {
		f.held = nil
	} else {
		h = nil
	}
	f.mu.Unlock()
	if h != nil {
		close(h.Arrived)
		select {
		case <-h.release:
		case <-f.over:
		}
	}
	f.back.ServeHTTP(w, r)
}

// admits tells whether a request may go on; else it has been answered.
func (t *Tokens) admits(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/token" {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("refresh_token") != t.Identity.Value {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return false
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": t.Bearer.Value, "expires_in": 300})
		return false
	}
	if r.Header.Get("Authorization") != "Bearer "+t.Bearer.Value {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="canary"`, r.Host))
		http.Error(w, "a token is wanted", http.StatusUnauthorized)
		return false
	}
	return true
}
