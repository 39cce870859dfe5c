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
	time    *time.Time        // of all files; nil: now
	hosts   map[string][]byte // SSH host keys, by host and port
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
	src, err := v.open(ctx, u, r, 0)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, src.pack.close()) }()
	out = buildcontext.Checkout{Commit: src.pack.format.hex(src.commit), Time: src.time}
	if r.CommitTime {
		v.time = &out.Time
	}
	if err := v.write(ctx, src, root); err != nil {
		return out, fmt.Errorf("failed to checkout remote %s: %w", shown(u), err)
	}
	return out, nil
}

// write puts what is wanted of a repository into the directory dir.
func (v *visit) write(ctx context.Context, src *source, dir int) (err error) {
	subdir := strings.Trim(path.Clean("/"+v.repo.Subdir), "/")
	p, err := v.locate(ctx, src, subdir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	w := &worktree{visit: v, src: p.src}
	if v.repo.KeepGitDir && subdir == "" {
		if w.keep, err = newKeeper(v, dir); err != nil {
			return err
		}
		defer unix.Close(w.keep.fd)
	}
	if err := w.write(ctx, p.tree, folder{fd: dir, path: p.path, attrs: p.attrs}); err != nil {
		return err
	}
	return v.touch(dir, "")
}

// place is a directory of a repository: the one that was asked for, or one of
// its submodules, which is to be closed then.
type place struct {
	src    *source
	tree   id
	path   string      // in src
	attrs  *attributes // of the directories above
	opened []*source
}

func (p *place) close() (err error) {
	for _, s := range p.opened {
		err = errors.Join(err, s.pack.close())
	}
	return err
}

// locate finds the directory subdir, also where that is in a submodule.
func (v *visit) locate(ctx context.Context, src *source, subdir string) (p *place, err error) {
	p = &place{src: src, tree: src.tree}
	if subdir == "" {
		return p, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("invalid subdir %s: %w", subdir, err), p.close())
		}
	}()
	done := ""
	for name := range strings.SplitSeq(subdir, "/") {
		done = path.Join(done, name)
		list, err := p.src.pack.readTree(p.tree)
		if err != nil {
			return p, err
		}
		if p.attrs, err = p.src.pack.within(p.attrs, p.path, list); err != nil {
			return p, err
		}
		e, ok := lookup(list, name)
		if !ok {
			return p, &os.PathError{Op: "lstat", Path: done, Err: os.ErrNotExist}
		}
		p.path = path.Join(p.path, name)
		switch {
		case e.mode&modeType == modeDir:
			p.tree = e.id
		case e.mode&modeType == modeRepo && !v.repo.NoSubmodules:
			sub, _, err := v.openModule(ctx, p.src, p.path, e.id)
			if err != nil {
				return p, err
			}
			if sub == nil {
				return p, fmt.Errorf("submodule %s is not to be fetched", done)
			}
			p.opened = append(p.opened, sub)
			p.src, p.tree, p.path, p.attrs = sub, sub.tree, "", nil
		default:
			return p, fmt.Errorf("git subpath %q contains non-directory %q", subdir, done)
		}
	}
	return p, nil
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
	if v.remote.Scheme != "http" && v.remote.Scheme != "https" {
		return nil
	}
	const header, token = "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"
	for _, name := range []string{header + "." + v.remote.Host, token + "." + v.remote.Host, header, token} {
		value, ok, err := v.cfg.HTTP.HeaderSecret(ctx, name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		v.header = value
		if strings.HasPrefix(name, token) {
			v.header = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+value))
		}
		return nil
	}
	return nil
}

// authorization is the header for a repository: the one that was asked for, and
// submodules below it. As with BuildKit, all of github.com gets it if that is
// there. Servers read a path with ".." in it as the one that it leads to.
func (v *visit) authorization(u *url.URL) string {
	if u.Scheme != v.remote.Scheme || u.Host != v.remote.Host {
		return ""
	}
	github := u.Scheme == "https" && (u.Host == "github.com" || u.Host == "www.github.com")
	if github || u.Path == v.remote.Path || strings.HasPrefix(path.Clean(u.Path), strings.TrimSuffix(path.Clean(v.remote.Path), "/")+"/") {
		return v.header
	}
	return ""
}

func (v *visit) connect(ctx context.Context, u *url.URL) (conn, error) {
	switch u.Scheme {
	case "ssh":
		return v.connectSSH(ctx, u)
	case "git":
		return v.connectDaemon(ctx, u)
	}
	return &httpConn{client: v.Client, base: u, home: u, header: v.authorization(u)}, nil
}
