package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// serve starts the case's HTTP server: its http/ files, and its git
// repositories, whose files lie in src, by smart HTTP from served. Without either it answers 404 to everything.
func (c *testCase) serve(src, served string) (*httptest.Server, error) {
	files := map[string][]byte{}
	repos := map[string]bool{}
	for _, f := range c.Files {
		if name, ok := strings.CutPrefix(f.Name, "http/"); ok {
			files["/"+name] = f.Data
		}
		if name, ok := strings.CutPrefix(f.Name, "git/"); ok {
			repos[strings.Split(name, "/")[0]] = true
		}
	}
	for _, f := range c.Opts.HTTP {
		files["/"+strings.TrimPrefix(strings.TrimPrefix(f.Path, "/"), "http/")] = f.Base64
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { serveFile(w, r, files) })
	for repo := range repos {
		if err := makeRepo(filepath.Join(src, "git", repo), filepath.Join(served, repo)); err != nil {
			return nil, fmt.Errorf("make %s: %w", repo, err)
		}
		mux.Handle("/"+repo+"/", &cgi.Handler{
			Path: "/bin/sh", Args: []string{"-c", "exec git http-backend"},
			Env: []string{"GIT_PROJECT_ROOT=" + served, "GIT_HTTP_EXPORT_ALL=1",
				"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
			InheritEnv: []string{"PATH"},
		})
	}
	return httptest.NewServer(mux), nil
}

func serveFile(w http.ResponseWriter, r *http.Request, files map[string][]byte) {
	data, ok := files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	w.Header().Set("Last-Modified", time.Unix(epoch, 0).UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	if r.Method == http.MethodHead {
		return
	}
	w.Write(data) // a client that went away is its own problem
}

// makeRepo makes a bare repository of one commit from the files in src, the
// same bytes each time.
func makeRepo(src, bare string) error {
	work := src + ".work"
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work},
		{"-C", work, "--work-tree", src, "add", "-A"},
		{"-C", work, "--work-tree", src, "commit", "-q", "-m", "one"},
		{"-C", work, "tag", "v1"},
		{"clone", "-q", "--bare", work, bare},
	} {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_AUTHOR_DATE=1577836800 +0000",
			"GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com", "GIT_COMMITTER_DATE=1577836800 +0000")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
