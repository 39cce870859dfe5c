package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/cachedir"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/hashes"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/layerdir"
)

// Caches is where the cache mounts of RUN steps are kept between builds. The
// sandbox sees the directory read-only and hands out what changed.
type Caches struct {
	Dir string // made if it is not there; "": nothing is kept
	// Limit bounds all of them together, in bytes.
	Limit int64
	// LayerLimit bounds the images of layers together, in bytes.
	LayerLimit int64
	// Renew has fetch pull the layers that are there already.
	Renew bool
	// Optional: if the directory cannot be used, build without it.
	Optional bool
}

// mounts is the part of the directory that holds cache mounts.
func (c Caches) mounts() string { return filepath.Join(c.Dir, "mounts") }

// Filled tells whether a build has left cache mounts there.
func (c Caches) Filled() bool {
	entries, err := os.ReadDir(c.mounts())
	return c.Dir != "" && err == nil && slices.ContainsFunc(entries, os.DirEntry.IsDir)
}

// layers is the part of the directory that holds images of base layers.
func (c Caches) layers() string { return filepath.Join(c.Dir, "layers") }

// Removed is what was removed from a cache directory.
type Removed struct {
	Mounts, Layers int
	Bytes          int64
}

// PruneCaches removes what was last used before a time from a cache directory; zero:
// all that no build uses now.
func PruneCaches(dir string, before time.Time) (r Removed, err error) {
	c := Caches{}
	if c.Dir, err = filepath.EvalSymlinks(dir); errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = checkOwner(c.Dir)
	}
	if err == nil {
		var gone cachedir.Removed
		gone, err = pruned(c.mounts(), before, cachedir.Prune)
		r.Mounts, r.Bytes = gone.Caches, gone.Bytes
	}
	if err == nil {
		var gone layerdir.Removed
		gone, err = pruned(c.layers(), before, layerdir.Prune)
		r.Layers, r.Bytes = gone.Layers, r.Bytes+gone.Bytes
	}
	if err == nil {
		var gone int64
		gone, err = pruned(c.hashes(), before, hashes.Prune)
		r.Bytes += gone
	}
	if err != nil {
		return r, fmt.Errorf("cache directory: %w", err)
	}
	return r, nil
}

// pruned prunes one part of the directory, if that is there.
func pruned[T any](dir string, before time.Time, prune func(string, time.Time) (T, error)) (gone T, err error) {
	if err = checkOwner(dir); err == nil {
		gone, err = prune(dir, before)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return gone, err
}

// maxCaches is how many cache mounts one build may have.
const maxCaches = 1000

// caches takes what a build changed in its cache mounts.
type caches struct {
	dir  *cachedir.Dir
	left int // outputs that may still come
	sink request.Sink
}

// openCaches makes the cache directory of c ready and tells the executor of it.
// If it is optional and cannot be used, c is without one afterwards.
func openCaches(c *Config) (*caches, error) {
	c.Request.Caches, c.Request.CacheSize = "", 0
	if c.Caches.Dir == "" {
		return nil, nil
	}
	dir, err := c.Caches.open()
	if err != nil && c.Caches.Optional {
		c.Caches.Dir = ""
		c.Sink.Emit(request.Event{Time: time.Now(), Kind: request.EventInfo, Text: "cache mounts are not kept: " + err.Error()})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.Request.Caches, c.Request.CacheSize = guestCaches, c.Caches.Limit
	return &caches{dir: dir, left: maxCaches, sink: c.Sink}, nil
}

// open makes the directory, follows links to it once, and checks that nobody else
// can put anything into it: what is found there goes into builds.
func (c *Caches) open() (*cachedir.Dir, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	real, err := filepath.EvalSymlinks(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	if err := checkOwner(real); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	c.Dir = real
	if err := os.Mkdir(c.mounts(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	if err := checkOwner(c.mounts()); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	return cachedir.Open(c.mounts(), c.Limit, 0)
}

// checkOwner refuses a directory that is not this user's alone to write.
func checkOwner(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to %d, who builds", dir, st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %#o): they could put something into a build", dir, info.Mode().Perm())
	}
	return nil
}

// trim holds the limit at the end of a build.
func (k *caches) trim() {
	if k == nil {
		return
	}
	r, err := k.dir.Trim()
	if err != nil {
		warn(k.sink, err.Error())
	}
	if r.Caches > 0 {
		text := fmt.Sprintf("removed %d cache mounts, %d MB, to keep within --cache-size", r.Caches, r.Bytes/1e6)
		k.sink.Emit(request.Event{Time: time.Now(), Kind: request.EventInfo, Text: text})
	}
}

// keptLayer is a layer of a cache mount on its way to the disk.
type keptLayer struct {
	caches *caches
	what   request.Output
	n      int64
	// in is nil if the layer is not kept, and why has been told, or there is
	// none to keep.
	in *cachedir.Incoming
}

// begin opens the next layer. What the executor cannot know, such as a full
// disk, costs the layer and not the build.
func (k *caches) begin(what request.Output) (*keptLayer, error) {
	if k == nil {
		return nil, fmt.Errorf("%w: %q was not asked for", errOutput, what.Kind)
	}
	if k.left--; k.left < 0 {
		return nil, fmt.Errorf("%w: more than %d cache mounts", errOutput, maxCaches)
	}
	if what.Base != "" && !digestForm.MatchString(what.Base) {
		return nil, fmt.Errorf("%w: cache mount on %.80q", errOutput, what.Base)
	}
	l := &keptLayer{caches: k, what: what}
	if what.Digest == "" && what.Size == 0 {
		return l, k.refused(k.dir.Touch(cachedir.Key(what.Name), what.Base))
	}
	var err error
	l.in, err = k.dir.Create(cachedir.Key(what.Name), cachedir.Layer{Digest: what.Digest, Size: what.Size})
	return l, k.refused(err)
}

// refused is err if the executor is to blame; of anything else it tells the user.
func (k *caches) refused(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, cachedir.ErrForm), errors.Is(err, cachedir.ErrTooLarge):
		return fmt.Errorf("%w: %w", errOutput, err)
	case errors.Is(err, cachedir.ErrStale):
		k.sink.Emit(request.Event{Time: time.Now(), Kind: request.EventDebug, Text: err.Error()})
	default:
		warn(k.sink, "a cache mount is not kept: "+err.Error())
	}
	return nil
}

func (l *keptLayer) write(p []byte) error {
	if l.n += int64(len(p)); l.n > l.what.Size {
		return fmt.Errorf("%w: cache mount has more than %d bytes", errOutput, l.what.Size)
	}
	if l.in == nil {
		return nil
	}
	_, err := l.in.Write(p)
	if err != nil {
		l.discard()
	}
	return l.caches.refused(err)
}

func (l *keptLayer) end(e request.OutputEnd) error {
	if e.Dropped {
		l.discard()
	}
	if l.in == nil {
		return nil
	}
	return l.caches.refused(l.in.Commit(l.what.Base))
}

func (l *keptLayer) discard() {
	if l.in != nil {
		l.in.Discard()
		l.in = nil
	}
}
