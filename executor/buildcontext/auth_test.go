package buildcontext

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// secrets are offered by id.
func secrets(list map[string]string) func(context.Context, string) ([]byte, bool, error) {
	return func(_ context.Context, id string) ([]byte, bool, error) {
		s, ok := list[id]
		if s == "broken" {
			return nil, false, errors.New("cannot be read")
		}
		return []byte(s), ok, nil
	}
}

func TestDownloadAuthorizes(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	for _, tc := range []struct {
		name    string
		secrets map[string]string
		want    string
		err     string
	}{
		{name: "none"},
		{name: "of another host", secrets: map[string]string{"HTTP_AUTH_TOKEN_example.com": "s3cret", "HTTP_AUTH_TOKEN_": "s3cret"}},
		{name: "token", secrets: map[string]string{"HTTP_AUTH_TOKEN_127.0.0.1": "s3cret"}, want: "Bearer s3cret"},
		{name: "token from a file", secrets: map[string]string{"HTTP_AUTH_TOKEN_127.0.0.1": "s3cret\n"}, want: "Bearer s3cret"},
		{name: "header", secrets: map[string]string{"HTTP_AUTH_HEADER_127.0.0.1": "Basic s3cret"}, want: "Basic s3cret"},
		{name: "both", secrets: map[string]string{"HTTP_AUTH_HEADER_127.0.0.1": "Basic x", "HTTP_AUTH_TOKEN_127.0.0.1": "s3cret"}, want: "Bearer s3cret"},
		{name: "two lines", secrets: map[string]string{"HTTP_AUTH_HEADER_127.0.0.1": "a s3cret\r\nX: y"}, err: "secret HTTP_AUTH_HEADER_127.0.0.1 has control characters"},
		{name: "broken", secrets: map[string]string{"HTTP_AUTH_HEADER_127.0.0.1": "broken"}, err: "cannot be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := NewHTTP(HTTPConfig{Secret: secrets(tc.secrets)})
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			_, err = h.Download(t.Context(), s.URL, &b)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the secret: %v", err)
			}
			if b.String() != tc.want {
				t.Errorf("Authorization %q, want %q", b.String(), tc.want)
			}
		})
	}
}

// TestRedirectKeepsTheCredentialHome: a server may send elsewhere, but no
// credential goes there, nor to a subdomain, nor from https to http.
func TestRedirectKeepsTheCredentialHome(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		kept     bool
	}{
		{"https://a.test/x", "https://a.test/y", true},
		{"http://a.test/x", "https://a.test/y", true},
		{"https://a.test/x", "http://a.test/y", false},
		{"https://a.test/x", "https://sub.a.test/y", false},
		{"https://a.test/x", "https://a.test:444/y", false},
		{"https://a.test/x", "https://b.test/y", false},
	} {
		from, to := hop(t, tc.from), hop(t, tc.to)
		to.Header.Set("Authorization", "s3cret")
		if err := CheckRedirect(to, []*http.Request{from}); err != nil {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
		if kept := to.Header.Get("Authorization") != ""; kept != tc.kept {
			t.Errorf("%s to %s: kept %v", tc.from, tc.to, kept)
		}
	}
}

func hop(t *testing.T, u string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDownloadAfterRedirect goes all the way with two servers.
func TestDownloadAfterRedirect(t *testing.T) {
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "got "+r.Header.Get("Authorization")+r.Header.Get("Referer"))
	}))
	t.Cleanup(there.Close)
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, there.URL, http.StatusFound)
	}))
	t.Cleanup(here.Close)
	h, err := NewHTTP(HTTPConfig{Secret: secrets(map[string]string{"HTTP_AUTH_TOKEN_127.0.0.1": "s3cret"})})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := h.Download(t.Context(), here.URL+"?sig=s3cret", &b); err != nil || b.String() != "got " {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// TestDownloadDecodesContentEncoding: as with BuildKit, what is compressed only
// on its way is not when it arrives; a file that is compressed stays so.
func TestDownloadDecodesContentEncoding(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, "plain")
	z.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/encoded" {
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Write(packed.Bytes())
	}))
	t.Cleanup(s.Close)
	h, err := NewHTTP(HTTPConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/encoded": "plain", "/file.gz": packed.String()} {
		var b bytes.Buffer
		if _, err := h.Download(t.Context(), s.URL+path, &b); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v", path, b.String(), err)
		}
	}
}

func TestShown(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/x":                     "https://h/x",
		"https://token@h/x":               "https://xxxxx:xxxxx@h/x",
		"https://user:pass@h/x":           "https://xxxxx:xxxxx@h/x",
		"ssh://git@h/x":                   "ssh://git@h/x",
		"ssh://git:secret@h/x":            "ssh://git:xxxxx@h/x",
		"http://h/x?sig=secret&se=2030":   "http://h/x?sig=xxxxx&se=xxxxx",
		"https://h/x?secret":              "https://h/x?secret=xxxxx",
		"https://h/x.git?ref=v1&subdir=d": "https://h/x.git?ref=v1&subdir=d",
		"https://user:%zz@h/x":            "https://",
		"https://user:a b@h/x":            "https://",
	} {
		if got := ShownText(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
