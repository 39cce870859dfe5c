package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/layerdir"
)

// stepForm is the key of a step in the layer cache.
var stepForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

const (
	// maxStep bounds what is noted of one step, in bytes, maxSteps what one build
	// may note.
	maxStep     = 2048
	maxNewSteps = 20000
)

// find returns what the layer cache has under a key. What it names stays there, and
// the blob is in the store: the answer holds for the whole run, also for the other
// roles.
func (l *layers) find(key string) request.CachedStep {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.found[key]; ok {
		return known
	}
	c, err := l.look(key)
	if err != nil {
		c = request.CachedStep{}
		warn(l.sink, "layer cache: "+err.Error())
	}
	l.found[key] = c
	return c
}

// look reads what is noted under a key and holds what that names. A note of what is
// gone is removed.
func (l *layers) look(key string) (c request.CachedStep, err error) {
	b, err := l.dir.Step(key)
	if err != nil || b == nil {
		return c, err
	}
	if c, err = parseStep(b); err != nil {
		l.dir.DropStep(key)
		return request.CachedStep{}, nil // damaged, or of another version
	}
	if !c.Found() {
		return c, nil
	}
	if c.Image && l.hold(c.LayerKey()) != nil {
		c.Image = false
	}
	if c.Digest != "" {
		key := layerdir.BlobKey(c.Digest)
		err := l.hold(key)
		if err == nil {
			err = l.in.adopt(c.Digest, l.held[key])
		}
		if err != nil {
			c.Digest = ""
		}
	}
	if !c.Image && c.Digest == "" {
		l.dir.DropStep(key)
		return request.CachedStep{}, nil
	}
	return c, nil
}

// hold holds an image or a blob until the run has ended.
func (l *layers) hold(key string) error {
	if l.held[key] != nil {
		return nil
	}
	i, err := l.dir.Open(key)
	if err != nil {
		return err
	}
	if err := i.Use(); err != nil {
		i.Close()
		return err
	}
	l.held[key] = i
	return nil
}

// parseStep takes what the cache, or a sandbox, says of a step.
func parseStep(b []byte) (c request.CachedStep, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: a step: %w", errOutput, err)
	}
	for _, form := range []struct {
		ok   bool
		what string
	}{
		{c.Key == "" || stepForm.MatchString(c.Key), "key"},
		{c.Hint != c.Found(), "hint"},
		{!c.Found() || digestForm.MatchString(c.DiffID), "diffID"},
		{c.Digest == "" || digestForm.MatchString(c.Digest) && c.Found(), "digest"},
		{c.Size >= 0 && c.TarSize >= 0, "size"},
		{len(c.Media) <= maxName, "media type"},
	} {
		if !form.ok {
			return c, fmt.Errorf("%w: %s of a step", errOutput, form.what)
		}
	}
	return c, nil
}

// incomingStep is what build says of a step.
type incomingStep struct {
	layers *layers
	key    string
	b      []byte
}

func (l *layers) beginStep(what request.Output) (*incomingStep, error) {
	if l.steps++; !l.caches || !stepForm.MatchString(what.Name) || l.steps > maxNewSteps {
		return nil, fmt.Errorf("%w: step %.80q", errOutput, what.Name)
	}
	return &incomingStep{layers: l, key: what.Name}, nil
}

func (i *incomingStep) write(p []byte) error {
	if i.b = append(i.b, p...); len(i.b) > maxStep {
		return fmt.Errorf("%w: a step has more than %d bytes", errOutput, maxStep)
	}
	return nil
}

// end checks that what is named has come, and keeps it for the end of the run: a blob
// may have to be copied.
func (i *incomingStep) end(e request.OutputEnd) error {
	if e.Dropped {
		return nil
	}
	c, err := parseStep(i.b)
	if err != nil {
		return err
	}
	l := i.layers
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Image && l.held[c.LayerKey()] == nil {
		return fmt.Errorf("%w: step %s has no image", errOutput, i.key)
	}
	if c.Digest != "" {
		if size, ok := l.in.size(c.Digest); !ok || size != c.Size {
			return fmt.Errorf("%w: step %s has no blob", errOutput, i.key)
		}
	}
	l.todo = append(l.todo, notedStep{i.key, c})
	return nil
}

func (*incomingStep) discard() {}

// notedStep is a step that is to be kept.
type notedStep struct {
	key string
	is  request.CachedStep
}

// drop forgets what build has said of its steps.
func (l *layers) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.todo = nil
}

// keepSteps writes what build has said of its steps into the cache.
func (l *layers) keepSteps() error {
	var errs []error
	for _, s := range l.todo {
		errs = append(errs, l.keepStep(s))
	}
	l.todo = nil
	return errors.Join(errs...)
}

func (l *layers) keepStep(s notedStep) error {
	if s.is.Digest != "" {
		if err := l.dir.Adopt(s.is.Digest, l.in.path(s.is.Digest), copyFile); err != nil {
			return err
		}
	}
	b, err := json.Marshal(s.is)
	if err != nil {
		return err
	}
	return l.dir.PutStep(s.key, b)
}

// adopt puts a blob of the cache into the store.
func (s *store) adopt(digest string, i *layerdir.Image) error {
	if !digestForm.MatchString(digest) {
		return fmt.Errorf("%w: digest %.80q", errOutput, digest)
	}
	hex := strings.TrimPrefix(digest, "sha256:")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.blobs[hex]; ok {
		return nil
	}
	if len(s.blobs) >= maxBlobs {
		return fmt.Errorf("%w: more than %d blobs", errOutput, maxBlobs)
	}
	if err := linkFile(i.Path, s.path(digest), s.disk, i.Size()); err != nil {
		return err
	}
	s.blobs[hex] = i.Size()
	return nil
}
