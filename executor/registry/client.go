package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// transfers is how many blobs are pulled, or pushed, at once.
const transfers = 4

// Config is how registries are reached. The zero value works: anonymous, by
// TLS, with the system's certificates.
type Config struct {
	Registry request.Registry
	// Keychain finds credentials; it is asked with a Target. nil: anonymous.
	Keychain authn.Keychain
	// UserAgent is sent with every request: kbuild-sandbox/<version>.
	UserAgent string
	// Roots are the trusted CA certificates in PEM; nil: the system's.
	Roots []byte
	// Proxy chooses the proxy for a request, as http.Transport.Proxy does;
	// nil: none.
	Proxy func(*http.Request) (*url.URL, error)
	// Gateway is the way to the host's loopback; zero: there is none.
	Gateway request.Gateway
	// Note is told in a line of text what went wrong and is tried again; nil:
	// nobody.
	Note func(text string)
}

// Client is a client of any number of registries. It is safe for concurrent
// use.
type Client struct {
	cfg   Config
	net   *network
	pause func(ctx context.Context, d time.Duration) error
	stall time.Duration // see stallTimeout
	pulls chan struct{} // a slot for each transfer

	mu       sync.Mutex
	sessions map[sessionKey]*session
	resolved map[string]*Image
	proven   map[string]string      // repository -> the mirror of it that answered
	checked  map[string]bool        // repositories that may be pushed to
	busy     map[string]*sync.Mutex // blobs on their way, see one
}

// New makes a client. It dials nothing yet.
func New(cfg Config) (*Client, error) {
	cfg.Registry = canonical(cfg.Registry)
	n, err := newNetwork(cfg)
	if err != nil {
		return nil, err
	}
	for _, m := range cfg.Registry.Maps {
		if _, err := mirrored(m, name.Repository{Registry: defaultRegistry()}); err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", m.Location, m.Host, err)
		}
	}
	return &Client{
		cfg: cfg, net: n, pause: pause, stall: stallTimeout,
		pulls:    make(chan struct{}, transfers),
		sessions: map[sessionKey]*session{},
		resolved: map[string]*Image{},
		proven:   map[string]string{},
		checked:  map[string]bool{},
		busy:     map[string]*sync.Mutex{},
	}, nil
}

// FullName returns a destination in full form, registry/repository:tag. The
// tag is latest if none is given; a digest is refused, because the digest of
// what is pushed is not ours to choose.
func FullName(dest string) (string, error) {
	tag, err := destination(dest)
	if err != nil {
		return "", err
	}
	return tag.Name(), nil
}

func destination(dest string) (name.Tag, error) {
	if strings.Contains(dest, "@") {
		return name.Tag{}, &Error{Class: request.ClassPush,
			Msg:  fmt.Sprintf("destination %s: a digest cannot be pushed to", clean(dest)),
			Hint: "give a tag: registry/repository:tag"}
	}
	tag, err := name.NewTag(dest, name.WeakValidation)
	if err != nil {
		return name.Tag{}, &Error{Class: request.ClassPush,
			Msg: fmt.Sprintf("destination %s is no image reference: %s", clean(dest), clean(err.Error())), Err: err}
	}
	return tag, nil
}

func (c *Client) note(format string, args ...any) {
	if c.cfg.Note != nil {
		c.cfg.Note(fmt.Sprintf(format, args...))
	}
}

// canonical returns r with host names as they are compared: lower case, and
// Docker Hub as index.docker.io. A mirror given as http://host is reached by
// plain HTTP.
func canonical(r request.Registry) request.Registry {
	r.InsecureHosts = hosts(r.InsecureHosts)
	r.SkipTLSHosts = hosts(r.SkipTLSHosts)
	certificates := map[string][]byte{}
	for h, pem := range r.Certificates {
		certificates[host(h)] = pem
	}
	r.Certificates = certificates
	maps := make([]request.Mirror, 0, len(r.Maps))
	for _, m := range r.Maps {
		m.Host = host(m.Host)
		scheme, rest, ok := strings.Cut(m.Location, "://")
		if ok {
			m.Location = rest
			if at, _, _ := strings.Cut(rest, "/"); scheme == "http" {
				r.InsecureHosts = append(r.InsecureHosts, host(at))
			}
		}
		m.Location = strings.TrimSuffix(m.Location, "/")
		maps = append(maps, m)
	}
	r.Maps = maps
	return r
}

func hosts(in []string) []string {
	out := make([]string, 0, len(in))
	for _, h := range in {
		out = append(out, host(h))
	}
	return out
}

func host(h string) string {
	h = strings.ToLower(h)
	if h == "docker.io" {
		return name.DefaultRegistry
	}
	return h
}

func defaultRegistry() name.Registry {
	r, err := name.NewRegistry(name.DefaultRegistry)
	if err != nil {
		panic(err) // a constant of the library
	}
	return r
}

// places are the repositories that an image of repo may be had from, in the
// order in which they are tried: the mirrors, then repo itself. The mirror that
// answered before comes first.
func (c *Client) places(repo name.Repository) []name.Repository {
	var list []name.Repository
	for _, m := range c.cfg.Registry.Maps {
		if m.Host != repo.RegistryStr() {
			continue
		}
		r, err := mirrored(m, repo)
		if err != nil {
			c.note("mirror %s of %s: %v", m.Location, m.Host, err)
			continue
		}
		list = append(list, r)
	}
	if len(list) == 0 || !c.cfg.Registry.SkipFallback {
		list = append(list, repo)
	}
	c.mu.Lock()
	good := c.proven[repo.Name()]
	c.mu.Unlock()
	for i, r := range list {
		if r.Name() == good {
			copy(list[1:i+1], list[:i])
			list[0] = r
		}
	}
	return list
}

// Beside says whether all of img's layers can be had at the registry of dest,
// and would be looked for nowhere else: a push to dest needs no other registry.
func (c *Client) Beside(img *Image, dest string) bool {
	to, err := destination(dest)
	if err != nil || img.From == "" {
		return false
	}
	from, err := name.NewRepository(img.From, name.WeakValidation)
	if err != nil {
		return false
	}
	places := c.places(from)
	return len(places) == 1 && places[0].Name() == from.Name() &&
		strings.EqualFold(from.RegistryStr(), to.RegistryStr())
}

// prove notes that place answered for repo.
func (c *Client) prove(repo, place name.Repository) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven[repo.Name()] = place.Name()
}

// mirrored is where m has repo: host[/prefix]/repository.
func mirrored(m request.Mirror, repo name.Repository) (name.Repository, error) {
	at, prefix, _ := strings.Cut(m.Location, "/")
	reg, err := name.NewRegistry(at, name.StrictValidation)
	if err != nil {
		return name.Repository{}, err
	}
	path := strings.TrimSuffix(prefix+"/"+repo.RepositoryStr(), "/")
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		path = "x" // only the host is checked
	}
	return name.NewRepository(reg.Name()+"/"+path, name.WeakValidation)
}
