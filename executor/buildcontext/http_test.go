package buildcontext

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func server(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
		w.Write([]byte("hello " + r.Header.Get("User-Agent")))
	})
	mux.HandleFunc("/undated", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("x"))
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/file", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			time.Sleep(30 * time.Millisecond)
		}
	})
	mux.HandleFunc("/304", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotModified) })
	mux.HandleFunc("/500", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestDownload(t *testing.T) {
	s := server(t)
	h, err := NewHTTP(HTTPConfig{UserAgent: "agent", MaxBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	h.stall = 200 * time.Millisecond
	tests := []struct {
		path, body string
		modified   int64 // 0: the server does not say
		err        string
	}{
		{path: "/file", body: "hello agent", modified: 1577836800},
		{path: "/moved", body: "hello agent", modified: 1577836800},
		{path: "/undated", body: "x"},
		{path: "/missing", err: "invalid response status 404"},
		{path: "/500", err: "invalid response status 500"},
		{path: "/304", err: "invalid response status 304"},
		{path: "/cut", err: "unexpected EOF"},
		{path: "/loop", err: "stopped after 10 redirects"},
		{path: "/away", err: `scheme "file"`},
		{path: "/stall", err: "nothing received for"},
		{path: "/drip", err: "less than 64 KiB received in 1s"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			var b bytes.Buffer
			modified, err := h.Download(t.Context(), s.URL+tt.path, &b)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.body {
				t.Errorf("body %q, want %q", b.String(), tt.body)
			}
			if tt.modified == 0 != modified.IsZero() || tt.modified != 0 && modified.Unix() != tt.modified {
				t.Errorf("modified %v, want %d", modified, tt.modified)
			}
		})
	}
}

func TestDownloadBounds(t *testing.T) {
	s := server(t)
	h, err := NewHTTP(HTTPConfig{MaxBytes: 5})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := h.Download(t.Context(), s.URL+"/file", &b); err == nil || !strings.Contains(err.Error(), "exceeds 5 bytes") {
		t.Errorf("a body over the limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Download(ctx, s.URL+"/file", &b); err == nil {
		t.Error("a download after the end")
	}
}

func TestDownloadHidesCredentials(t *testing.T) {
	h, err := NewHTTP(HTTPConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"http://user:hunter2@127.0.0.1:1/x", "ftp://user:hunter2@h/x", "http://user:hunter2@h/%zz"} {
		_, err := h.Download(t.Context(), u, &bytes.Buffer{})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v", u, err)
		}
	}
}

// A proxy that is down is told as such.
func TestDownloadThroughDeadProxy(t *testing.T) {
	for proxy, want := range map[string]string{
		"http://user:hunter2@127.0.0.1:1": "the proxy 127.0.0.1:1 of HTTP_PROXY or HTTPS_PROXY: dial tcp 127.0.0.1:1: connect: connection refused",
		"http://proxy.invalid:3128":       "the proxy proxy.invalid:3128 of HTTP_PROXY or HTTPS_PROXY: ",
	} {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		h, err := NewHTTP(HTTPConfig{Proxy: http.ProxyURL(u)})
		if err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"http", "https"} {
			_, err := h.Download(t.Context(), scheme+"://web.example/x", &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s by %s: %v, want %q", scheme, proxy, err, want)
			}
		}
	}
}

func TestDownloadTrusts(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // one client is to break off
	s.StartTLS()
	defer s.Close()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	h, err := NewHTTP(HTTPConfig{Roots: cert})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Download(t.Context(), s.URL, &bytes.Buffer{}); err != nil {
		t.Errorf("a trusted server: %v", err)
	}
	if h, err = NewHTTP(HTTPConfig{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Download(t.Context(), s.URL, &bytes.Buffer{}); err == nil {
		t.Error("an unknown server was trusted")
	}
	if _, err := NewHTTP(HTTPConfig{Roots: []byte("no PEM")}); err == nil {
		t.Error("no certificate, no error")
	}
}
