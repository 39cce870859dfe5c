package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// channel is the executor's end of the socket to the launcher. It is the sink
// of events, the way out of outputs and the source of credentials, secrets and
// replies of SSH agents.
type channel struct {
	w *request.Writer

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan request.Answer
	closed  error
	release chan struct{} // closed when the launcher says go
	begun   func()
	start   request.Go // valid when release is closed
	image   chan request.Pushing
	ahead   chan request.Descriptor // see executor.Tools
	streams atomic.Uint32
	outputs chan struct{} // a place for each output that is open
	agents  chan struct{} // a place for each message that agents have not answered
}

var errLauncherGone = errors.New("the launcher is gone")

// newChannel serves the socket; cancel is called when the launcher asks to stop
// or goes away.
func newChannel(f *os.File, cancel context.CancelFunc) *channel {
	c := &channel{
		w: request.NewWriter(f), waiting: map[uint64]chan request.Answer{}, release: make(chan struct{}),
		agents: make(chan struct{}, request.MaxAgentsAtOnce), outputs: make(chan struct{}, request.MaxStreams),
		image: make(chan request.Pushing, 1), ahead: make(chan request.Descriptor, request.MaxLayers),
	}
	c.begun = sync.OnceFunc(func() { close(c.release) })
	go func() {
		err := c.serve(request.NewReader(bufio.NewReader(f)))
		c.mu.Lock()
		c.closed = err
		for id, ch := range c.waiting {
			close(ch)
			delete(c.waiting, id)
		}
		c.mu.Unlock()
		cancel()
	}()
	return c
}

func (c *channel) serve(r *request.Reader) error {
	for {
		kind, payload, err := r.Next()
		if err != nil {
			return fmt.Errorf("%w: %w", errLauncherGone, err)
		}
		switch kind {
		case request.FrameGo:
			if err := request.Decode(kind, payload, &c.start); err != nil {
				return err
			}
			c.begun()
		case request.FrameAhead:
			var blob request.Descriptor
			if err := request.Decode(kind, payload, &blob); err != nil {
				return err
			}
			select {
			case c.ahead <- blob:
			default: // it is in time when the image is there
			}
		case request.FramePush:
			var what request.Pushing
			if err := request.Decode(kind, payload, &what); err != nil {
				return err
			}
			select {
			case c.image <- what:
			default:
				return fmt.Errorf("%w: a second %q", request.ErrFrame, kind)
			}
		case request.FrameCancel:
			return context.Canceled
		case request.FrameAnswer:
			var a request.Answer
			if err := request.Decode(kind, payload, &a); err != nil {
				return err
			}
			clear(payload) // it may be a secret
			c.mu.Lock()
			ch := c.waiting[a.ID]
			delete(c.waiting, a.ID)
			c.mu.Unlock()
			if ch != nil {
				ch <- a
			}
		default:
			return fmt.Errorf("%w: kind %q from the launcher", request.ErrFrame, kind)
		}
	}
}

// hello tells the launcher what the walls look like from inside and waits until
// it has looked at them from outside.
func (c *channel) hello(ctx context.Context, p request.Posture) error {
	if err := c.w.WriteJSON(request.FrameHello, p); err != nil {
		return err
	}
	select {
	case <-c.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next says that it is time for the image, and waits until the launcher says what
// to push.
func (c *channel) next(ctx context.Context) (request.Pushing, error) {
	if err := c.w.Write(request.FrameReady, nil); err != nil {
		return request.Pushing{}, err
	}
	select {
	case what := <-c.image:
		return what, nil
	case <-ctx.Done():
		return request.Pushing{}, ctx.Err()
	}
}

// end sends the result. One that fits into no frame is a failure: a build can name
// more than can be told.
func (c *channel) end(result request.Result) error {
	err := c.w.WriteJSON(request.FrameResult, result)
	if !errors.Is(err, request.ErrFrame) {
		return err
	}
	return c.w.WriteJSON(request.FrameResult, request.Result{
		Version: result.Version, Posture: result.Posture, Failure: &request.Failure{
			Class:   request.ClassResource,
			Message: fmt.Sprintf("the build has more images and sources than can be told: %d", len(result.Images)+len(result.Materials)),
		},
	})
}

// Emit implements request.Sink. A launcher that is gone cancels the build by
// itself, so nothing is to be done about an error here.
func (c *channel) Emit(e request.Event) { _ = c.w.WriteJSON(request.FrameEvent, e) }

// keychain finds credentials: it asks the launcher, which alone has the user's and
// decides who gets them.
type keychain struct {
	*channel
	// always is the one scope that this role may ask for; empty: any. Push reads
	// with it, too: what it mounts and copies lies beside what it pushes.
	always request.Scope
}

// Resolve implements authn.Keychain.
func (c keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	target, ok := r.(registry.Target)
	if !ok {
		return nil, fmt.Errorf("asked for %s in an unknown form %T", r, r)
	}
	scope := cmp.Or(c.always, target.Scope)
	a, err := c.ask(context.Background(), request.Ask{Host: target.Host, Repository: target.Repository, Scope: scope})
	if err != nil {
		return nil, err // registry says for which host
	}
	auth := authn.AuthConfig{
		Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
	if auth == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(auth), nil
}

// Secret is executor.Tools.Secret.
func (c *channel) Secret(ctx context.Context, id string) ([]byte, error) {
	a, err := c.ask(ctx, request.Ask{Scope: request.Secret, Name: id})
	return a.Data, err
}

// Find implements executor.LayerCache.
func (c *channel) Find(ctx context.Context, key string) (found request.CachedStep, err error) {
	a, err := c.ask(ctx, request.Ask{Scope: request.Step, Name: key})
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(a.Data, &found)
}

// Contents is executor.Tools.Contents. Names are bytes, and a frame has text: what
// would arrive as something else is not asked for.
func (c *channel) Contents(ctx context.Context, root request.GuestPath, of request.Contents) ([]byte, error) {
	b, err := json.Marshal(of)
	if err != nil || bytes.Contains(b, []byte(`\ufffd`)) || len(b) > request.MaxContents {
		return nil, err
	}
	a, err := c.ask(ctx, request.Ask{Scope: request.Digest, Name: string(root), Data: b})
	return a.Data, err
}

// Agent is executor.Tools.Agent.
func (c *channel) Agent(ctx context.Context, id string, message []byte) ([]byte, error) {
	select {
	case c.agents <- struct{}{}:
		defer func() { <-c.agents }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a, err := c.ask(ctx, request.Ask{Scope: request.Agent, Name: id, Data: message})
	return a.Data, err
}

// ask asks the launcher and waits for its answer.
func (c *channel) ask(ctx context.Context, ask request.Ask) (request.Answer, error) {
	ch := make(chan request.Answer, 1)
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		return request.Answer{}, c.closed
	}
	c.last++
	ask.ID = c.last
	c.waiting[ask.ID] = ch
	c.mu.Unlock()
	if err := c.w.WriteJSON(request.FrameAsk, ask); err != nil {
		return request.Answer{}, err
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return a, errLauncherGone
		}
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, ask.ID)
		c.mu.Unlock()
		return request.Answer{}, ctx.Err()
	}
}
