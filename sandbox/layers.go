package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/layerdir"
)

// layers are the images of base layers of one run: those that the cache directory
// had, and those that fetch hands out.
type layers struct {
	dir  *layerdir.Dir
	path string
	keep bool   // dir outlives the run
	name string // of this build among those that the directory knows
	sink request.Sink
	disk *disk  // what they take their room from
	in   *store // has the blobs that fetch has pulled

	caches bool // steps are kept too

	mu    sync.Mutex
	held  map[string]*layerdir.Image // by key
	sums  map[string]string          // of the images that build has handed out, by DiffID
	found map[string]request.CachedStep
	todo  []notedStep
	steps int // that build has told of
}

// openLayers makes ready what keeps images, in the cache directory or else in the
// run's own, and tells the request which ones there are.
func openLayers(c *Config, home string, s *store) (*layers, error) {
	l := &layers{name: nameOf(*c), sink: c.Sink, in: s, held: map[string]*layerdir.Image{}, sums: map[string]string{}, found: map[string]request.CachedStep{}, keep: c.Caches.Dir != ""}
	l.caches = l.keep && c.Request.StepCache
	c.Request.StepCache = l.caches
	l.path = filepath.Join(home, "layers")
	if l.keep {
		l.path = c.Caches.layers()
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("layer images: %w", err)
	}
	if l.dir, err = layerdir.Open(l.path, c.Caches.LayerLimit, strings.TrimSpace(string(boot))); err != nil {
		return nil, err
	}
	if err := checkOwner(l.path); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	l.disk = s.diskOf(l.path)
	images, err := l.dir.Hold()
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		l.held[i.Key] = i
	}
	l.checkLikely()
	for _, i := range images {
		if l.held[i.Key] != nil && !c.Caches.Renew {
			c.Request.Layers = append(c.Request.Layers, i.Key)
		}
	}
	return l, nil
}

// checkLikely looks at the images that are likely to be used, before anybody counts on
// them: one that is damaged is pulled again.
func (l *layers) checkLikely() {
	for _, key := range l.dir.Recall(l.name) {
		if i := l.held[key]; i != nil && i.Use() != nil {
			l.lose(key)
		}
	}
}

// lose lets go of an image that is damaged, which needs mu once roles run.
func (l *layers) lose(key string) {
	l.held[key].Close()
	delete(l.held, key)
}

// errLost ends a run that has counted on an image and found it damaged, long after
// it could have been pulled. It is gone from the cache.
var errLost = errors.New("a layer in the cache directory is damaged")

// nameOf is what a build has in common with its next run: most likely they need
// the same images.
func nameOf(c Config) string {
	r := c.Request
	b, err := json.Marshal([]any{c.Context, r.Source, c.Dockerfile, r.DockerfileURL, c.DockerfileData, r.Target, r.Platforms})
	if err != nil {
		return "" // nothing is known of such a build
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// guess lists the images that build needs if it is like the last time.
func (l *layers) guess() (keys []string) {
	for _, key := range l.dir.Recall(l.name) {
		if strings.HasPrefix(key, "blob-") || len(keys) >= request.MaxLayers {
			continue
		}
		if _, err := l.hold(key); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// unpackable is up to which size images need not be mounted: unpacking the layers
// takes less time than a start of a sandbox.
const unpackable = 16 << 20

// lacks tells whether a build with some images mounted has to start anew with those
// of keys.
func (l *layers) lacks(mounted, keys []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var size int64
	for _, key := range keys {
		if slices.Contains(mounted, key) {
			continue
		}
		_, digest, _ := strings.Cut(key, "-")
		i := l.held[key]
		if _, pulled := l.in.size("sha256:" + digest); i == nil || !pulled {
			return true
		}
		size += i.Size()
	}
	return size > unpackable
}

// remember notes for the next time what was needed. Nothing is needed by a build of
// which nothing has changed; the next one will have changed.
func (l *layers) remember(keys []string) {
	if !l.keep || len(keys) == 0 {
		return
	}
	if err := l.dir.Remember(l.name, keys); err != nil {
		warn(l.sink, err.Error())
	}
}

// use returns the files of images that build is to have.
func (l *layers) use(keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []string
	for _, key := range keys {
		i := l.held[key]
		if i == nil || len(files) >= request.MaxLayers {
			return nil, fmt.Errorf("%w: %d layers, one of them %.140q", errOutput, len(keys), key)
		}
		if i.Use() != nil {
			l.lose(key)
			return nil, errLost
		}
		files = append(files, i.Path)
	}
	return files, nil
}

// close lets go of all images and holds the limit.
func (l *layers) close() {
	if l == nil {
		return
	}
	for _, i := range l.held {
		i.Close()
	}
	if !l.keep {
		return
	}
	r, err := l.dir.Trim()
	if err != nil {
		warn(l.sink, err.Error())
	}
	if r.Layers > 0 {
		text := fmt.Sprintf("removed %d layers, %d MB, to keep within --cache-max-size", r.Layers, r.Bytes/1e6)
		l.sink.Emit(request.Event{Time: time.Now(), Kind: request.EventInfo, Text: text})
	}
}

// incomingLayer is an image on its way.
type incomingLayer struct {
	layers *layers
	in     *layerdir.Incoming
	taken  int64 // of the disk
}

// baseForm is a request.LayerKey: nothing that steps have made, and no blob.
var baseForm = regexp.MustCompile(`^[0-9a-f]{64}-[0-9a-f]{64}$`)

// begin opens an image: fetch's are called by the layer, build's by the digest that
// they end with.
func (l *layers) begin(role request.Role, what request.Output) (*incomingLayer, error) {
	if ofStep := role == request.RoleBuild; ofStep != (what.Name == "") || ofStep && !l.caches || !ofStep && !baseForm.MatchString(what.Name) {
		return nil, fmt.Errorf("%w: layer %.140q of %s", errOutput, what.Name, role)
	}
	in, err := l.dir.Create(what.Name)
	if errors.Is(err, layerdir.ErrForm) {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	if err != nil {
		return nil, err
	}
	return &incomingLayer{layers: l, in: in}, nil
}

func (i *incomingLayer) write(p []byte) error {
	if err := i.layers.disk.take(int64(len(p))); err != nil {
		return err
	}
	i.taken += int64(len(p))
	_, err := i.in.Write(p)
	return err
}

func (i *incomingLayer) end(e request.OutputEnd) error {
	if e.Dropped {
		i.discard()
		return nil
	}
	sum := i.in.Sum()
	img, ours, err := i.in.Commit(request.CachedStep{DiffID: e.Digest, Sum: sum}.LayerKey())
	if errors.Is(err, layerdir.ErrSize) || errors.Is(err, layerdir.ErrForm) {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	if err != nil {
		return err
	}
	if !ours {
		i.layers.disk.give(i.taken)
	}
	i.layers.mu.Lock()
	defer i.layers.mu.Unlock()
	if old := i.layers.held[img.Key]; old != nil {
		old.Close()
	}
	i.layers.held[img.Key] = img
	if e.Digest != "" {
		i.layers.sums[e.Digest] = sum
	}
	return nil
}

func (i *incomingLayer) discard() {
	i.in.Discard()
	i.layers.disk.give(i.taken)
	i.taken = 0
}

// layerMounts mounts the images where request.LayerPath says. gVisor reads them
// itself: no gofer is between.
func layerMounts(c Config) (list []specs.Mount) {
	for n, file := range c.layers {
		list = append(list, specs.Mount{Destination: string(request.LayerPath(n)), Type: layerType, Source: file, Options: []string{"ro"}})
	}
	return list
}

const layerType = "erofs"
