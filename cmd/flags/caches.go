package flags

import (
	"os"
	"path/filepath"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// caches says what is kept between builds.
type caches struct {
	dir    string
	size   string
	layers string // size of all images of layers together
	limit  int64  // that as a number
	steps  bool
}

// cacheSize and layersSize are the bounds of a cache directory unless others are
// given.
const (
	cacheSize  = "10g"
	layersSize = "20g"
)

func (b *Build) registerCaches() {
	fs, c := b.set, &b.caches
	fs.StringVar(&c.dir, "cache-dir", "", "keep base layers, results of steps and cache mounts of RUN in this `directory`; empty: nowhere (default: kbuild-sandbox in $XDG_CACHE_HOME or ~/.cache; in a pod: nowhere)")
	fs.StringVar(&c.size, "cache-size", cacheSize, "`size` of all cache mounts together; the least recently used go first")
	fs.StringVar(&c.layers, "cache-max-size", layersSize, "`size` of all layers that are kept in the cache directory; the least recently used go first")
	fs.BoolVar(&c.steps, "cache", false, "use what steps have made in earlier builds, and keep it, in the cache directory and in --cache-repo")
	group(fs, groupRun, "cache", "cache-dir", "cache-size", "cache-max-size")
}

// cacheOptions takes --cache, --cache-dir and --cache-size.
func (b *Build) cacheOptions(r *request.Build, from From) error {
	size, err := parseSize(b.caches.size)
	if err != nil {
		return usagef("for example 20g", "--cache-size: %s", err)
	}
	if b.caches.limit, err = parseSize(b.caches.layers); err != nil {
		return usagef("for example 20g", "--cache-max-size: %s", err)
	}
	r.StepCache = b.caches.steps
	dir := from.CacheDir
	if b.set.Changed("cache-dir") {
		if dir, err = CacheDir(b.caches.dir, from.Dir); err != nil {
			return err
		}
	}
	if dir != "" {
		r.Caches, r.CacheSize = request.GuestPath(dir), size
	}
	return nil
}

// CacheDirGiven tells whether the directory was named, rather than the standard
// one, which need not be there.
func (b *Build) CacheDirGiven() bool { return b.set.Changed("cache-dir") }

// LayerLimit bounds the base layers that are kept, in bytes.
func (b *Build) LayerLimit() int64 { return b.caches.limit }

// CacheDir makes the value of --cache-dir absolute. The current directory may be
// a stranger's checkout: a path below it may not lead out of it by a link.
func CacheDir(given, dir string) (string, error) {
	if given == "" {
		return "", nil
	}
	path := absolute(dir, given)
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return "", inputf("", "--cache-dir: %s: not a directory", path)
	}
	if err := staysBelow(path, dir); err != nil {
		return "", inputf("name a path outside of it", "--cache-dir: %s", err)
	}
	return path, nil
}

// StandardCacheDir is where cache mounts are kept unless the user says
// otherwise, by the XDG Base Directory Specification: a relative path there
// counts as none. It is empty if there is no home directory.
func StandardCacheDir(env func(name string) (string, bool)) string {
	const name = "kbuild-sandbox"
	if dir, _ := env("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, name)
	}
	if home, _ := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache", name)
	}
	return ""
}
