package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// build is one run of up to three sandboxes.
//
//	fetch ──blobs, contexts──▶ store ──▶ build ──blobs──▶ store ──▶ push
//
// They start side by side, and each waits for what it needs: build for fetch's
// result and for push to have found that it may, push for build's result.
type build struct {
	c      Config
	home   home
	mode   mode
	store  *store
	out    *outputs
	kept   map[string]*outputs // layouts of results of steps
	caches *caches
	layers *layers
	// contents are nil without a layer cache.
	contents *contents
	events   *numbering
	phases   *phases // the launcher's own
	tally    *tally
	root     *request.Descriptor // instead of build's result; nil: that is it

	mu       sync.Mutex
	results  map[request.Role]request.Result
	postures map[request.Role]request.RolePosture
	failed   *failure // the first
}

// failure is how the first role that failed ended.
type failure struct {
	role   request.Role
	result request.Result
	err    error
}

// errOtherFailed ends a role because another one has failed.
var errOtherFailed = errors.New("another part of the build has failed")

// baton is handed from one role to the next.
type baton[T any] struct {
	ready chan struct{}
	value T
}

func newBaton[T any]() *baton[T] { return &baton[T]{ready: make(chan struct{})} }

func (b *baton[T]) pass(v T) { b.value = v; close(b.ready) }

func (b *baton[T]) passed() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

func (b *baton[T]) take(ctx context.Context) (v T, err error) {
	select {
	case <-b.ready:
		return b.value, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

// remember keeps which layers a build of this kind mounts; a call mounts none.
func (b *build) remember(res request.Result) {
	if b.c.Request.Call == "" {
		b.layers.remember(res.Layers)
	}
}

// run runs the roles to their end.
func (b *build) run(ctx context.Context) (request.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		fetched = newBaton[request.Go]()      // what build begins with
		layers  = newAhead(b.pushes())        // what it will have
		ready   = newBaton[struct{}]()        // the destinations take a push
		image   = newBaton[request.Pushing]() // what push pushes
		all     sync.WaitGroup
	)
	play := func(p part, then func(request.Result) error) {
		how := b.play
		if p.role == request.RoleBuild {
			how = b.playMounted
		}
		all.Go(func() {
			res, err := how(ctx, p)
			b.note(p.role, res)
			if err == nil && res.Failure == nil {
				err = then(res)
			}
			if b.failure(p.role, res, err) {
				cancel(errOtherFailed)
			}
		})
	}
	play(part{role: request.RoleFetch}, func(res request.Result) error {
		b.remember(res)
		fetched.pass(request.Go{Fetched: res.Fetched, Layers: res.Layers, Steps: res.Steps})
		return nil
	})
	if b.c.Request.Call == "" {
		if b.pushes() {
			play(part{role: request.RolePush, ready: func() { ready.pass(struct{}{}) }, image: image.take, ahead: layers}, func(request.Result) error {
				if !image.passed() {
					return &EndError{Msg: "push ended before there was anything to push"}
				}
				return nil
			})
		} else {
			ready.pass(struct{}{})
		}
		begin := func(ctx context.Context) (request.Go, error) {
			if _, err := ready.take(ctx); err != nil {
				return request.Go{}, err
			}
			return fetched.take(ctx)
		}
		play(part{role: request.RoleBuild, begin: begin, ahead: layers}, func(res request.Result) error {
			pushing, err := b.attest(res)
			pushing.Exported = res.Exported
			if err == nil {
				image.pass(pushing)
			}
			return err
		})
	}
	all.Wait()
	return b.result()
}

// pushes tells whether there is a push to do: of the image, or of results of steps.
func (b *build) pushes() bool {
	r := b.c.Request
	return !r.NoPush && len(r.Destinations) > 0 || slices.ContainsFunc(r.CacheTo, inRegistry)
}

// inRegistry says that results of steps are pushed to a place.
func inRegistry(to request.CacheTarget) bool { return to.Layout == "" && !to.None() }

// note keeps how a role ended, for those that go on with what it did.
func (b *build) note(role request.Role, res request.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[role] = res
}

// stands keeps what was measured of a role's walls.
func (b *build) stands(found request.RolePosture) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.postures[found.Role] = found
}

// posture is what was measured of all walls so far, in the order of the flow.
func (b *build) posture() (list []request.RolePosture) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, role := range roles {
		if p, ok := b.postures[role]; ok {
			list = append(list, p)
		}
	}
	return list
}

// failure notes how a role failed, and tells whether the others have to end too.
func (b *build) failure(role request.Role, res request.Result, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && res.Failure == nil {
		return false
	}
	if b.failed == nil {
		b.failed = &failure{role, res, err}
	}
	return true
}

// result makes one result of those of the roles.
func (b *build) result() (request.Result, error) {
	if b.failed != nil {
		b.failed.result.Posture = b.posture()
		return b.failed.result, b.failed.err
	}
	fetch, built, pushed := b.results[request.RoleFetch], b.results[request.RoleBuild], b.results[request.RolePush]
	if b.c.Request.Call != "" {
		fetch.Posture = b.posture()
		return fetch, nil
	}
	res := built
	if b.root != nil {
		res.Digest, res.Size, res.Media, res.Config = b.root.Digest, b.root.Size, b.root.MediaType, ""
	}
	res.Materials = append(fetch.Materials, built.Materials...)
	res.Posture = b.posture()
	res.Pushed = pushed.Pushed
	return res, nil
}

// part is what is particular about one role.
type part struct {
	role request.Role
	// stands is told what was measured of the walls, good or not.
	stands func(request.RolePosture)
	// layers are the keys of the images that the role mounts.
	layers []string
	// begin waits for what the role begins with; nil: at once.
	begin func(context.Context) (request.Go, error)
	// ready is called once, when the role is ready for its image; nil: never.
	ready func()
	// image waits for what is pushed; nil: nothing.
	image func(context.Context) (request.Pushing, error)
	// ahead are layers that the image will have; nil: the role has no use for them.
	ahead *ahead
}

// errMounts ends a sandbox that has other images mounted than it needs.
var errMounts = errors.New("other layers are needed")

// playMounted runs build. What a sandbox has mounted it has from its start, and what
// it needs is known when fetch has ended: so that it need not wait for that, it
// starts with what was needed last time, and anew if that was wrong.
func (b *build) playMounted(ctx context.Context, p part) (request.Result, error) {
	begin, needs := p.begin, []string(nil)
	p.layers = b.layers.guess()
	p.begin = func(ctx context.Context) (request.Go, error) {
		start, err := begin(ctx)
		if needs = start.Layers; err == nil && b.layers.lacks(p.layers, needs) {
			err = errMounts
		}
		start.Layers = p.layers
		return start, err
	}
	res, err := b.play(ctx, p)
	if !errors.Is(err, errMounts) {
		return res, err
	}
	if err := os.RemoveAll(b.home.of(p.role).bundle); err != nil {
		return request.Result{}, fmt.Errorf("start again: %w", err)
	}
	p.begin, p.layers = begin, needs
	return b.play(ctx, p)
}

// play runs one role in a sandbox of its own to its end.
func (b *build) play(ctx context.Context, p part) (request.Result, error) {
	to := b.events.of(p.role)
	phases := newPhases(to, string(p.role))
	defer phases.end()
	phases.enter(phaseStart)
	l := b.home.of(p.role)
	c := b.c.playing(p.role)
	var err error
	if c.layers, err = b.layers.use(p.layers); err != nil {
		return request.Result{}, err
	}
	if err := writeBundle(c, l, b.mode); err != nil {
		return request.Result{}, err
	}
	if ctx.Err() != nil {
		return request.Result{}, context.Cause(ctx)
	}
	c.Sink = to
	in := &intake{role: p.role, store: b.store, open: map[uint32]incoming{}}
	if p.role != request.RolePush {
		in.layers, in.contents = b.layers, b.contents
	}
	if p.role == request.RoleBuild {
		in.out, in.kept, in.caches, in.ahead = b.out, b.kept, b.caches, p.ahead
	}
	defer in.discard()
	p.stands = b.stands
	res, err := runSandbox(ctx, c, l, b.mode, conversation{part: p, in: in, phases: phases})
	if err == nil && res.Failure == nil && len(in.open) > 0 {
		err = fmt.Errorf("%w: %s ended, but an output of it is not complete", errOutput, p.role)
	}
	return res, err
}

// playing is the part of a config that a role may know.
func (c Config) playing(role request.Role) Config {
	r := c.Request
	r.Role = role
	if role != request.RoleFetch {
		c.CacheFrom = nil
	}
	switch role {
	case request.RoleFetch:
		r.Caches, r.CacheSize = "", 0
		c.Caches = Caches{}
	case request.RoleBuild:
		r.Store = guestStore
		r.Registry = request.Registry{}
		r.DockerfileURL = ""
		r.Layers, r.CacheFrom = nil, nil
		r.CacheTo = slices.Clone(r.CacheTo)
		for i := range r.CacheTo { // what goes there, not where that is
			at := &r.CacheTo[i].CachePlace
			*at = request.CachePlace{Layout: at.Layout, Called: at.Called}
		}
		r.Source.URL, r.Source.Git = "", nil
		r.Contexts = slices.Clone(r.Contexts)
		for i := range r.Contexts {
			r.Contexts[i].Source.URL, r.Contexts[i].Source.Git = "", nil
		}
	case request.RolePush:
		r = request.Build{
			Version: r.Version, Role: role, Store: guestStore, Destinations: r.Destinations, Registry: r.Registry,
			SkipImmutable: r.SkipImmutable, SkipPushCheck: r.SkipPushCheck, Limits: r.Limits, CacheTo: r.CacheTo, NoPush: r.NoPush,
		}
		if r.NoPush {
			r.Destinations = nil
		}
		c.Context, c.Archive, c.Stdin, c.Contexts = "", "", nil, nil
		c.Dockerfile, c.DockerfileData, c.Ignore = "", nil, ""
		c.Caches = Caches{}
	}
	c.Request = r
	return c
}
