package sandbox

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
// roles. Whoever asks meanwhile does not wait for an image to be checked.
func (l *layers) find(key string) request.CachedStep {
	l.mu.Lock()
	known, ok := l.found[key]
	l.mu.Unlock()
	if ok {
		return known
	}
	c, err := l.look(key)
	if err != nil {
		c = request.CachedStep{}
		warn(l.sink, "layer cache: "+err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.found[key]; ok {
		return known
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
	if c.Image {
		_, err := l.hold(c.LayerKey())
		c.Image = err == nil
	}
	if c.Digest != "" {
		i, err := l.hold(layerdir.BlobKey(c.Digest))
		if err == nil {
			err = l.in.adopt(c.Digest, i)
		}
		if err != nil {
			c.Digest = ""
		}
	}
	if c.Digest == "" && (c.Pulled || !c.Image) { // what was pulled is called by its blob
		l.dir.DropStep(key)
		return request.CachedStep{}, nil
	}
	return c, nil
}

// hold holds an image or a blob that is fit for use until the run has ended.
func (l *layers) hold(key string) (*layerdir.Image, error) {
	l.mu.Lock()
	i := l.held[key]
	l.mu.Unlock()
	if i != nil {
		return i, nil
	}
	i, err := l.dir.Open(key)
	if err != nil {
		return nil, err
	}
	if err := i.Use(); err != nil {
		i.Close()
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if there := l.held[key]; there != nil { // somebody has asked for the same
		i.Close()
		return there, nil
	}
	l.held[key] = i
	return i, nil
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
		{c.Sum == "" || stepForm.MatchString(c.Sum), "sum"},
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
	if sum, made := l.sums[c.DiffID]; made && !c.Pulled {
		c.Sum = sum // what build says of it does not count
	}
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

// keepSteps writes what build has said of its steps into the cache. What cannot be
// kept costs time in a later build and not this one.
func (l *layers) keepSteps() {
	for _, s := range l.todo {
		if err := l.keepStep(s); err != nil {
			warn(l.sink, err.Error())
		}
	}
	l.todo = nil
}

func (l *layers) keepStep(s notedStep) error {
	if s.is.Digest != "" {
		copyBlob := func(from string, to *os.File) error {
			if err := l.disk.fits(s.is.Size); err != nil {
				return err
			}
			return copyInto(from, to)
		}
		if err := l.dir.Adopt(s.is.Digest, l.in.path(s.is.Digest), copyBlob); err != nil {
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
	tmp := filepath.Join(s.dir, "new", rand.Text())
	if err := linkFile(i.Path, tmp, s.disk, i.Size()); err != nil {
		return err
	}
	defer os.Remove(tmp)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.blobs[hex]; ok {
		return nil
	}
	if len(s.blobs) >= maxBlobs {
		return fmt.Errorf("%w: more than %d blobs", errOutput, maxBlobs)
	}
	if err := os.Rename(tmp, s.path(digest)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.blobs[hex] = i.Size()
	return nil
}
