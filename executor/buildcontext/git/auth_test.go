package git

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

func config(secrets map[string]string) Config {
	return Config{HTTP: buildcontext.HTTPConfig{Secret: func(_ context.Context, id string) ([]byte, bool, error) {
		s, ok := secrets[id]
		return []byte(s), ok, nil
	}}}
}

// guard lets requests through that have the header.
func guard(inner http.Handler, header string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != header {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func TestSecretsAuthorize(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	s := serve(t, root)
	inner := s.Config.Handler
	host := strings.TrimPrefix(s.URL, "http://")
	basic := "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:s3cret"))
	for _, tc := range []struct {
		name    string
		secrets map[string]string
		header  string
		err     string
	}{
		{"token", map[string]string{"GIT_AUTH_TOKEN": "s3cret\n"}, basic, ""},
		{"header", map[string]string{"GIT_AUTH_HEADER": "Bearer s3cret"}, "Bearer s3cret", ""},
		{"header first", map[string]string{"GIT_AUTH_HEADER": "Bearer s3cret", "GIT_AUTH_TOKEN": "x"}, "Bearer s3cret", ""},
		{"host first", map[string]string{"GIT_AUTH_HEADER": "x", "GIT_AUTH_TOKEN." + host: "s3cret"}, basic, ""},
		{"of another host", map[string]string{"GIT_AUTH_TOKEN.example.com": "s3cret"}, basic, "authentication failed (status 401)"},
		{"wrong", map[string]string{"GIT_AUTH_TOKEN": "s3cretly"}, basic, "authentication failed (status 401)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.Config.Handler = guard(inner, tc.header)
			_, err := newClient(t, config(tc.secrets)).Checkout(t.Context(), buildcontext.Repository{URL: s.URL + "/r.git"}, t.TempDir())
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// TestUserInURL is not shown, and not kept in .git.
func TestUserInURL(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	s := serve(t, root)
	s.Config.Handler = guard(s.Config.Handler, "Basic "+base64.StdEncoding.EncodeToString([]byte("me:s3cret")))
	address := strings.Replace(s.URL, "http://", "http://me:s3cret@", 1)
	dir, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: address + "/r.git", KeepGitDir: true})
	for name, what := range tree(t, filepath.Join(dir, ".git")) {
		if strings.Contains(what, "s3cret") {
			t.Errorf(".git/%s has the password", name)
		}
	}
	_, err := newClient(t, Config{}).Checkout(t.Context(), buildcontext.Repository{URL: address + "/no.git"}, t.TempDir())
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "repository not found (status 404)") {
		t.Error(err)
	}
}

// TestWhoGetsTheSecret: the repository that was asked for, and what is below it.
func TestWhoGetsTheSecret(t *testing.T) {
	for _, tc := range []struct {
		remote, url string
		sent        bool
	}{
		{"https://h.test/a/b.git", "https://h.test/a/b.git", true},
		{"https://h.test/a/b.git", "https://h.test/a/b.git/info/refs?x=y", true},
		{"https://h.test/a/b.git", "https://h.test/a/b.gitx", false},
		{"https://h.test/a/b.git", "https://h.test/a/c.git", false},
		{"https://h.test/a/b.git", "https://h.test/a/b.git/../../x/y.git", false},
		{"https://h.test/a/b.git", "https://h.test/a/b.git/%2e%2e/c.git", false},
		{"https://h.test/a/b.git", "https://h.test/a/b.git/../b.git/c.git", true},
		{"https://h.test/a/b.git", "http://h.test/a/b.git", false},
		{"https://h.test/a/b.git", "https://h.test:444/a/b.git", false},
		{"https://h.test/a/b.git", "https://x.test/a/b.git", false},
		{"https://github.com/a/b.git", "https://github.com/c/d.git/info/refs", true},
		{"http://github.com/a/b.git", "http://github.com/c/d.git", false},
		{"https://github.com/a/b.git", "https://github.com.x.test/a/b.git", false},
	} {
		remote, err := parseAddress(tc.remote)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		v := &visit{remote: remote, header: "s3cret"}
		if got := v.authorization(u) != ""; got != tc.sent {
			t.Errorf("%s to %s: sent %v", tc.remote, tc.url, got)
		}
	}
}

// TestRenamedRepository: a redirect within the host keeps the secret.
func TestRenamedRepository(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	s := serve(t, root)
	inner := s.Config.Handler
	s.Config.Handler = guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/old/") {
			http.Redirect(w, r, strings.Replace(r.URL.String(), "/old/", "/", 1), http.StatusMovedPermanently)
			return
		}
		inner.ServeHTTP(w, r)
	}), "Bearer s3cret")
	c := newClient(t, config(map[string]string{"GIT_AUTH_HEADER": "Bearer s3cret"}))
	checkout(t, c, buildcontext.Repository{URL: s.URL + "/old/r.git"})
}

// TestRedirectedRepository: the first request may be sent elsewhere, the rest
// follows it, without the secret if that is another host.
func TestRedirectedRepository(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	there := serve(t, root)
	var seen []string
	inner := there.Config.Handler
	there.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		inner.ServeHTTP(w, r)
	})
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, there.URL+strings.Replace(r.URL.String(), "/old/", "/", 1), http.StatusMovedPermanently)
	}))
	t.Cleanup(here.Close)
	c := newClient(t, config(map[string]string{"GIT_AUTH_TOKEN": "s3cret"}))
	dir, _ := checkout(t, c, buildcontext.Repository{URL: here.URL + "/old/r.git"})
	if _, ok := tree(t, dir)["README"]; !ok {
		t.Error("no README")
	}
	if diff := cmp.Diff([]string{"", "", "", ""}, seen); diff != "" {
		t.Errorf("Authorization there: %s", diff)
	}
}
