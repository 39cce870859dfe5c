package git

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// commitTime is that of all commits of these tests, 2020-01-01.
const commitTime = "1577836800 +0000"

// git runs the real git in dir and returns what it prints.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = gitEnv()
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

func gitEnv() []string {
	return append(os.Environ(), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always",
		"GIT_CONFIG_KEY_2=init.defaultBranch", "GIT_CONFIG_VALUE_2=main",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE="+commitTime,
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE="+commitTime)
}

// repo is a repository in the making, at root/name.git.
type repo struct {
	t    *testing.T
	root string // what is served
	dir  string
}

func newRepo(t *testing.T, root, name string, args ...string) *repo {
	t.Helper()
	dir := filepath.Join(root, name)
	git(t, root, append(append([]string{"init", "-q"}, args...), dir)...)
	return &repo{t, root, dir}
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	return git(r.t, r.dir, args...)
}

// write writes a file; the mode is 0o755 if it begins with "#!".
func (r *repo) write(name, data string) {
	r.t.Helper()
	at := filepath.Join(r.dir, name)
	mode := os.FileMode(0o644)
	if strings.HasPrefix(data, "#!") {
		mode = 0o755
	}
	err := os.MkdirAll(filepath.Dir(at), 0o755)
	if err == nil {
		err = os.WriteFile(at, []byte(data), mode)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// commit commits all and returns the hash.
func (r *repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", message)
	return r.git("rev-parse", "HEAD")
}

// serve serves all repositories below root through git's own program for web
// servers.
func serve(t *testing.T, root string, env ...string) *httptest.Server {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(&cgi.Handler{
		Path: path, Args: []string{"http-backend"},
		Env: append(append(gitEnv(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"), env...),
	})
	t.Cleanup(s.Close)
	return s
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.HTTP.UserAgent = "test"
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checkout checks out r into a directory of its own.
func checkout(t *testing.T, c *Client, r buildcontext.Repository) (string, buildcontext.Checkout) {
	t.Helper()
	dir := t.TempDir()
	out, err := c.Checkout(t.Context(), r, dir)
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(c.cfg.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the working directory: %v, %v", left, err)
	}
	return dir, out
}

// tree lists what is below dir: path, type and mode, content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		data := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			data += " " + string(b)
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			data = "-> " + to
		}
		if rel != "." {
			out[rel] = data
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// files lists the files below dir as git ls-tree does.
func files(t *testing.T, dir string) (list []string) {
	for name, what := range tree(t, dir) {
		if what[0] != 'd' {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// serveOld serves by version 0 of the protocol, whatever is asked for.
func serveOld(t *testing.T, root string) *httptest.Server {
	s := serve(t, root)
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		inner.ServeHTTP(w, r)
	})
	return s
}

// gitDaemon serves by git's own protocol and returns the address.
func gitDaemon(t *testing.T, root string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+root)
				cmd.Env = gitEnv()
				cmd.Stdin, cmd.Stdout = c, c
				cmd.Run()
			}()
		}
	}()
	return l.Addr().String()
}

// gitTry runs the real git, which may fail, and returns what it printed.
func gitTry(t *testing.T, args ...string) (string, bool) {
	cmd := exec.Command("git", args...)
	cmd.Env = gitEnv()
	out, err := cmd.Output()
	return string(out), err == nil
}

func contextWithCause(t *testing.T, cause error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(cause) }
}

// said is a server that says what it was told to.
type said struct{ hello, answer []byte }

func (s *said) greet(context.Context) (*lines, error) { return newLines(bytes.NewReader(s.hello)), nil }

func (s *said) ask(context.Context, []byte) (*lines, error) {
	return newLines(bytes.NewReader(s.answer)), nil
}

func (s *said) close() string { return "" }
