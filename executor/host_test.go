package executor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// host is the launcher's side of the roles: it writes the store, as far as what
// comes out is in order.
type host struct {
	t     *testing.T
	store string
	tools Tools

	mu     sync.Mutex
	kept   []string
	ahead  []string
	steps  []string                      // keys of those that were handed out
	files  map[request.OutputKind][]byte // what has no place in the store
	events []request.Event
	now    int // outputs that are open
	most   int
	// refuse makes outputs of a kind fail.
	refuse request.OutputKind
}

func newHost(t *testing.T, tools Tools) *host {
	t.Helper()
	h := &host{t: t, store: t.TempDir(), tools: tools, files: map[request.OutputKind][]byte{}}
	for _, d := range []string{"blobs/sha256", contextsDir} {
		check(t, os.MkdirAll(filepath.Join(h.store, d), 0o755))
	}
	images, err := registry.New(registry.Config{})
	check(t, err)
	if h.tools.Images == nil {
		h.tools.Images = images
	}
	h.tools.Sink, h.tools.Outlet = h, h
	h.tools.Walls = func(request.Posture) error { return nil }
	return h
}

func (h *host) Emit(e request.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// told are the texts of the events of a kind.
func (h *host) told(kind request.EventKind) (texts []string) {
	for _, e := range h.events {
		if e.Kind == kind {
			texts = append(texts, e.Name+e.Text)
		}
	}
	return texts
}

func (h *host) Keep(what request.Output) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := map[request.OutputKind]*[]string{request.OutputKeep: &h.kept, request.OutputAhead: &h.ahead}[what.Kind]
	*list = append(*list, what.Digest)
	return nil
}

func (h *host) Open(what request.Output) (request.Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if what.Kind == h.refuse {
		return nil, errors.New("no more room")
	}
	h.now++
	h.most = max(h.most, h.now)
	return &hostStream{h: h, what: what}, nil
}

type hostStream struct {
	h    *host
	what request.Output
	bytes.Buffer
	done bool
}

func (s *hostStream) Commit(digest string) error {
	s.end()
	if s.what.Size > 0 && int64(s.Len()) != s.what.Size {
		s.h.t.Errorf("%+v: %d bytes", s.what, s.Len())
	}
	path := ""
	switch s.what.Kind {
	case request.OutputStored:
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(s.Bytes())); sum != digest {
			s.h.t.Errorf("%s is called %s", sum, digest)
		}
		path = filepath.Join("blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
	case request.OutputTags:
		path = "index.json"
	case request.OutputSources:
		path = "sources.json"
	case request.OutputContext:
		path = filepath.Join(contextsDir, s.what.Name)
	default:
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		s.h.files[s.what.Kind] = s.Bytes()
		if s.what.Kind == request.OutputStep {
			s.h.steps = append(s.h.steps, s.what.Name)
		}
		return nil
	}
	return os.WriteFile(filepath.Join(s.h.store, path), s.Bytes(), 0o444)
}

func (s *hostStream) Close() error {
	if !s.done {
		s.end()
	}
	return nil
}

func (s *hostStream) end() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.done = true
	s.h.now--
}

// has says whether the store has a blob.
func (h *host) has(digest string) bool {
	_, err := os.Stat(filepath.Join(h.store, "blobs/sha256", strings.TrimPrefix(digest, "sha256:")))
	return err == nil
}

// request is what a role is asked: its part of req, with a workspace of its own.
func (h *host) request(req request.Build, role request.Role) *request.Build {
	h.t.Helper()
	dir, err := os.MkdirTemp(insandbox.Workspace, "r")
	check(h.t, err)
	h.t.Cleanup(func() { check(h.t, os.RemoveAll(dir)) })
	req.Version, req.Role, req.Workspace = request.Version, role, request.GuestPath(dir)
	switch role {
	case request.RoleBuild, request.RolePush:
		req.Store = request.GuestPath(h.store)
		req.Registry = request.Registry{}
	}
	if role == request.RoleBuild { // it hears of no address
		req.DockerfileURL, req.Source.URL, req.Source.Git = "", "", nil
		req.Contexts = slices.Clone(req.Contexts)
		for i := range req.Contexts {
			req.Contexts[i].Source.URL = ""
		}
	}
	return &req
}

func (h *host) fetch(req request.Build) request.Result {
	h.t.Helper()
	return Fetch(h.t.Context(), h.request(req, request.RoleFetch), h.tools)
}

// build plays the role after the one whose result is fetched.
func (h *host) build(req request.Build, fetched request.Result) request.Result {
	h.t.Helper()
	tools := h.tools
	tools.Images = nil
	return Build(h.t.Context(), h.request(req, request.RoleBuild), request.Go{Fetched: fetched.Fetched}, tools)
}

// push plays the role after the one whose result is built.
func (h *host) push(req request.Build, built request.Result, more ...request.Attached) request.Result {
	h.t.Helper()
	next := func(context.Context) (request.Pushing, error) {
		image := request.Descriptor{MediaType: built.Media, Digest: built.Digest, Size: built.Size}
		return request.Pushing{Descriptor: image, Attached: more}, nil
	}
	return Push(h.t.Context(), h.request(req, request.RolePush), next, h.tools)
}

// succeed fails the test if a role has failed.
func succeed(t *testing.T, role string, r request.Result) request.Result {
	t.Helper()
	if r.Failure != nil {
		t.Fatalf("%s: %+v", role, *r.Failure)
	}
	return r
}
