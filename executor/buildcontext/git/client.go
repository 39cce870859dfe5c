package git

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// stall ends a conversation with a server from which nothing comes for so long.
const stall = 2 * time.Minute

// Config is how repositories are fetched.
type Config struct {
	// HTTP says how web servers are spoken to, and has the secrets.
	HTTP buildcontext.HTTPConfig
	// Dir takes what was fetched while it is needed, in files without names;
	// empty: the system's directory for temporary files.
	Dir string
	// Agent sends a message to the SSH agent and returns its reply, both without
	// length; nil: there is no agent.
	Agent func(ctx context.Context, message []byte) ([]byte, error)
}

// Client fetches repositories. It is safe for concurrent use.
type Client struct {
	cfg    Config
	http   *http.Client
	stall  time.Duration
	limits limits
}

// New fails if the certificates cannot be read.
func New(cfg Config) (*Client, error) {
	client, err := newHTTPClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, http: client, stall: stall, limits: defaultLimits}, nil
}

// visit is one checkout, with its submodules.
type visit struct {
	*Client
	repo    buildcontext.Repository
	remote  *url.URL // of repo itself, not of a submodule
	header  string   // Authorization for remote; empty: none
	buf     []byte
	files   int
	written int64
	modules int
}

// Checkout implements executor.Git.
func (c *Client) Checkout(ctx context.Context, r buildcontext.Repository, dir string) (out buildcontext.Checkout, err error) {
	u, err := parseAddress(r.URL)
	if err != nil {
		return out, err
	}
	v := &visit{Client: c, repo: r, remote: u, buf: make([]byte, 256<<10)}
	if err := v.findHeader(ctx); err != nil {
		return out, err
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return out, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	found, err := v.fetch(ctx, u, r)
	if err != nil {
		return out, fmt.Errorf("failed to fetch remote %s: %w", shown(u), err)
	}
	defer func() { err = errors.Join(err, found.pack.close()) }()
	out = buildcontext.Checkout{Commit: found.pack.format.hex(found.commit), Time: found.time}
	if err := v.write(ctx, found, root); err != nil {
		return out, fmt.Errorf("failed to checkout remote %s: %w", shown(u), err)
	}
	return out, nil
}

// write puts what is wanted of a repository into the directory dir.
func (v *visit) write(ctx context.Context, f *found, dir int) error {
	w := &worktree{visit: v, pack: f.pack}
	if v.repo.CommitTime {
		w.time = &f.time
	}
	tree, err := v.subtree(f)
	if err != nil {
		return err
	}
	if err := w.tree(ctx, tree, dir, "", 0); err != nil {
		return err
	}
	return w.touch(dir, "")
}

// subtree finds the directory that is wanted.
func (v *visit) subtree(f *found) (id, error) {
	at := f.tree
	subdir := strings.Trim(path.Clean("/"+v.repo.Subdir), "/")
	if subdir == "" {
		return at, nil
	}
	done := ""
	for name := range strings.SplitSeq(subdir, "/") {
		done = path.Join(done, name)
		list, err := f.pack.readTree(at)
		if err != nil {
			return at, err
		}
		e, ok := lookup(list, name)
		if !ok {
			return at, fmt.Errorf("invalid subdir %s: %s: %w", subdir, done, os.ErrNotExist)
		}
		if e.mode&modeType != modeDir {
			return at, fmt.Errorf("git subpath %q contains non-directory %q", subdir, done)
		}
		at = e.id
	}
	return at, nil
}

func lookup(list []entry, name string) (entry, bool) {
	for _, e := range list {
		if e.name == name {
			return e, true
		}
	}
	return entry{}, false
}

// findHeader makes the header that the user's secrets stand for. The one for a
// host goes before the one for all, a header before a token.
func (v *visit) findHeader(ctx context.Context) error {
	if v.cfg.HTTP.Secret == nil || v.remote.Scheme != "http" && v.remote.Scheme != "https" {
		return nil
	}
	const header, token = "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"
	for _, name := range []string{header + "." + v.remote.Host, token + "." + v.remote.Host, header, token} {
		data, ok, err := v.cfg.HTTP.Secret(ctx, name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		v.header = string(data)
		if strings.HasPrefix(name, token) {
			v.header = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+v.header))
		}
		if strings.ContainsAny(v.header, "\r\n\x00") {
			return fmt.Errorf("secret %s has a line feed: it is no header", name)
		}
		return nil
	}
	return nil
}

// authorization is the header for a URL. It goes to the repository that was
// asked for and, as with BuildKit, to all of github.com if that is there.
func (v *visit) authorization(u *url.URL) string {
	if u.Scheme != v.remote.Scheme || u.Host != v.remote.Host {
		return ""
	}
	github := u.Scheme == "https" && (u.Host == "github.com" || u.Host == "www.github.com")
	if github || u.Path == v.remote.Path || strings.HasPrefix(u.Path, strings.TrimSuffix(v.remote.Path, "/")+"/") {
		return v.header
	}
	return ""
}

func (v *visit) connect(_ context.Context, u *url.URL) (conn, error) {
	switch u.Scheme {
	case "http", "https":
		return &httpConn{client: v.Client, base: u, auth: v.authorization}, nil
	}
	return nil, fmt.Errorf("scheme %s is not supported", u.Scheme)
}
