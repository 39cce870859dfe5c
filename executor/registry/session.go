package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Target is what a Keychain is asked for: the credential of one repository for
// one purpose. A keychain answers for the host exactly, never for a host that
// merely ends in the same way.
type Target struct {
	Host       string // host[:port]; Docker Hub is index.docker.io
	Repository string // without the host
	Scope      request.Scope
}

// String implements authn.Resource.
func (t Target) String() string { return t.Host + "/" + t.Repository }

// RegistryStr implements authn.Resource.
func (t Target) RegistryStr() string { return t.Host }

// sessionKey tells sessions apart. from is a further repository of the same
// registry that blobs are mounted from.
type sessionKey struct {
	repo  string
	from  string
	scope request.Scope
}

// session is a repository with the credential for one purpose.
type session struct {
	c    *Client
	repo name.Repository
	key  sessionKey

	mu     sync.Mutex
	client *http.Client // nil until the registry let us in
	who    identity
}

// identity is the credential in use, for messages. It holds no secret.
type identity struct {
	text string // empty: no credential was found
}

// session returns the session of repo for scope; from may be empty.
func (c *Client) session(repo name.Repository, scope request.Scope, from string) (*session, error) {
	key := sessionKey{repo: repo.Name(), from: from, scope: scope}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.sessions[key]; ok {
		return s, nil
	}
	if c.net.plain(strings.ToLower(repo.RegistryStr()), scope) {
		var err error
		if repo, err = name.NewRepository(repo.Name(), name.WeakValidation, name.Insecure); err != nil {
			return nil, err
		}
	}
	s := &session{c: c, repo: repo, key: key}
	c.sessions[key] = s
	return s, nil
}

// login returns a client that adds the credential to requests to the registry,
// and to these only. The first call asks the registry what it wants.
func (s *session) login(ctx context.Context) (*http.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	auth, err := s.credential(ctx)
	if err != nil {
		return nil, err
	}
	action := transport.PullScope
	if s.key.scope == request.Push {
		action = transport.PushScope
	}
	scopes := []string{s.repo.Scope(action)}
	if s.key.from != "" {
		scopes = append(scopes, "repository:"+s.key.from+":"+transport.PullScope)
	}
	w := wire{net: s.c.net, scope: s.key.scope, plain: s.c.net.plain(strings.ToLower(s.repo.RegistryStr()), s.key.scope)}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	rt, err := transport.NewWithContext(ctx, s.repo.Registry, auth, w, scopes)
	if err != nil {
		return nil, err
	}
	s.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	return s.client, nil
}

// credential asks the keychain.
func (s *session) credential(ctx context.Context) (authn.Authenticator, error) {
	s.who = identity{}
	if s.c.cfg.Keychain == nil {
		return authn.Anonymous, nil
	}
	t := Target{Host: s.repo.RegistryStr(), Repository: s.repo.RepositoryStr(), Scope: s.key.scope}
	auth, err := authn.Resolve(ctx, s.c.cfg.Keychain, t)
	if err != nil {
		return nil, &credentialError{err}
	}
	if auth == authn.Anonymous {
		return auth, nil
	}
	cfg, err := authn.Authorization(ctx, auth)
	if err != nil {
		return nil, &credentialError{err}
	}
	switch {
	case cfg.RegistryToken != "":
		s.who.text = "the registry token"
	case cfg.IdentityToken != "":
		s.who.text = "the identity token"
	case cfg.Username != "":
		s.who.text = "the credential of user " + clean(cfg.Username)
	case cfg.Auth != "":
		s.who.text = "the credential"
	default:
		return authn.Anonymous, nil
	}
	return auth, nil
}

// identity is the credential in use.
func (s *session) identity() identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.who
}

// url is the address of something in the repository. rest is not escaped.
func (s *session) url(rest string) string {
	u := url.URL{
		Scheme: s.repo.Scheme(), // the transport corrects it to what answered
		Host:   s.repo.RegistryStr(),
		Path:   "/v2/" + s.repo.RepositoryStr() + "/" + rest,
	}
	return u.String()
}

// do sends a request and checks the status. The caller closes the body.
func (s *session) do(req *http.Request, codes ...int) (*http.Response, error) {
	client, err := s.login(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, cause(req.Context(), err)
	}
	if err := transport.CheckError(resp, codes...); err != nil {
		resp.Body.Close()
		return nil, cause(req.Context(), err)
	}
	return resp, nil
}

// small sends a request without body and reads the answer, which has at most
// limit bytes.
func (s *session) small(req *http.Request, limit int64, codes ...int) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(req.Context(), metadataTimeout)
	defer cancel()
	resp, err := s.do(req.WithContext(ctx), codes...)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, cause(ctx, err)
	}
	if int64(len(b)) > limit {
		return nil, nil, &formError{fmt.Sprintf("the answer has more than %d bytes", limit)}
	}
	return resp, b, nil
}

// cause returns why ctx ended if that is why err happened.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}
