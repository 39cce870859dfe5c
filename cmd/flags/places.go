package flags

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// places says where results of steps are kept beside the cache directory: in Kaniko's
// words, then in docker buildx's.
//
// Kaniko's --cache reads and fills a repository, and so does ours: --cache-repo, else
// <repository of the first destination>/cache, as Kaniko infers it. The launcher has the
// cache directory beside that, which is asked first, and which is enough: without a
// destination, with --no-push, or with an empty --cache-repo it is all that there is. A pod
// has no such cache, so there --cache needs a repository, as with Kaniko.
type places struct {
	repository   string
	ttl          time.Duration
	copies, runs bool
	noPush       bool
	from, to     []string
}

// kanikoTTL is how long Kaniko uses results in a repository.
const kanikoTTL = 14 * 24 * time.Hour

// besideCache are the flags that say something about --cache.
var besideCache = []string{"cache-repo", "cache-copy-layers", "cache-run-layers", "no-push-cache"}

func (b *Build) registerPlaces() {
	fs, p := b.set, &b.places
	fs.StringVar(&p.repository, "cache-repo", "", "with --cache, keep what steps have made in this `repository`, or in the OCI layout oci:DIRECTORY, too (default: cache below the repository of the first destination)")
	fs.DurationVar(&p.ttl, "cache-ttl", kanikoTTL, "do a step again whose cached result has this `age`; without a repository only if given")
	fs.BoolVar(&p.copies, "cache-copy-layers", false, "keep what COPY and ADD make of files of a context in --cache-repo, too")
	fs.BoolVar(&p.runs, "cache-run-layers", true, "keep what RUN, WORKDIR and COPY --from a stage make in --cache-repo")
	fs.BoolVar(&p.noPush, "no-push-cache", false, "use what is in --cache-repo, and push nothing there")
	fs.Var(listValue{&p.from}, "cache-from", "use what steps have made in an earlier build with --cache-to: `REFERENCE`, type=registry,ref=REFERENCE or type=local,src=DIRECTORY; may be repeated")
	fs.Var(listValue{&p.to}, "cache-to", "keep what steps have made in this `place`: type=registry,ref=REFERENCE or type=local,dest=DIRECTORY, each with or without mode=max and ignore-error=false; may be repeated")
	group(fs, groupRun, "cache-repo", "cache-ttl", "cache-copy-layers", "cache-run-layers", "no-push-cache", "cache-from", "cache-to")
}

// cachePlaces takes --cache-repo, --cache-from and --cache-to.
func (b *Build) cachePlaces(r *request.Build, from From) error {
	p := &b.places
	if r.Call != "" {
		return nil
	}
	if err := b.cacheRepository(r, from); err != nil {
		return err
	}
	inRepository := len(r.CacheFrom) > 0
	for _, given := range p.from {
		at, err := b.cacheFrom(r, given, from)
		if err != nil {
			return err
		}
		r.CacheFrom = append(r.CacheFrom, at)
	}
	for _, given := range p.to {
		to, err := b.cacheTo(r, given, from)
		if err != nil {
			return err
		}
		r.CacheTo = append(r.CacheTo, to)
	}
	switch given := b.set.Changed("cache-ttl"); {
	case given && p.ttl <= 0:
		return usagef("--no-cache does all steps again", "--cache-ttl: %v: want more than 0", p.ttl)
	case given || inRepository:
		r.CacheTTL = p.ttl
	}
	return nil
}

// cacheRepository settles the repository of --cache, if there is one.
func (b *Build) cacheRepository(r *request.Build, from From) error {
	p := &b.places
	if !b.caches.steps {
		for _, name := range besideCache {
			if b.set.Changed(name) {
				b.compat.ignored = append(b.compat.ignored, notice{name, needsCache})
			}
		}
		return nil
	}
	repo := p.repository
	switch {
	case repo != "":
		if err := checkCacheRepo(repo); err != nil {
			return err
		}
	case b.set.Changed("cache-repo") && from.KeepsSteps:
		return nil
	case !r.NoPush && len(r.Destinations) > 0:
		repo = repository(r.Destinations[0]) + "/cache"
	case from.KeepsSteps:
		return nil
	case p.noPush:
		b.compat.ignored = append(b.compat.ignored, notice{"cache", "there is no repository to take results of steps from: name one with --cache-repo"})
		return nil
	default:
		return usagef("", "--cache: if using cache with --no-push, specify cache repo with --cache-repo")
	}
	at := request.CachePlace{Repository: repo}
	if dir, ok := strings.CutPrefix(repo, layoutPrefix); ok {
		var err error
		if at, err = resultLayout("cache-repo", dir, r, from); err != nil {
			return err
		}
	} else if b.remote.insecure { // Kaniko's means the cache both ways
		plainHTTP(r, repo)
	}
	r.CacheFrom = append(r.CacheFrom, at)
	if !p.noPush {
		r.CacheTo = append(r.CacheTo, request.CacheTarget{CachePlace: at, Copies: p.copies, Others: p.runs, All: true, Merge: at.Layout != ""})
	}
	return nil
}

// plainHTTP lets the registry of a reference be reached by plain HTTP.
func plainHTTP(r *request.Build, ref string) {
	if h := registryOf(ref); !slices.Contains(r.Registry.InsecureHosts, h) {
		r.Registry.InsecureHosts = append(r.Registry.InsecureHosts, h)
	}
}

// layoutPrefix begins the name of an OCI layout, as Kaniko has it.
const layoutPrefix = "oci:"

// resultLayout is the directory of an OCI layout with results of steps, which need not be
// there. Where the current directory or the context is a stranger's checkout, no link of
// it may lead out of it.
func resultLayout(flag, dir string, r *request.Build, from From) (at request.CachePlace, err error) {
	if dir == "" {
		return at, usagef("", "--%s: a directory is missing", flag)
	}
	path, err := record(flag, dir, from.Dir, string(r.Context))
	if err != nil {
		return at, err
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return at, inputf("", "--%s: %s: not a directory", flag, path)
	}
	return request.CachePlace{Layout: request.GuestPath(path), Called: dir}, nil
}

// checkCacheRepo finds what people get wrong; the grammar is the executor's.
func checkCacheRepo(repo string) error {
	switch {
	case strings.HasPrefix(repo, layoutPrefix):
		return nil
	case strings.Contains(repo, "://"):
		return usagef("", "--cache-repo: %q: a repository has no scheme", repo)
	case strings.ContainsAny(repo, "@,") || !isRepository(repo) || repository(repo) != repo:
		return usagef("for example registry.example.com/team/app/cache", "--cache-repo: %q: not a repository, without a tag", repo)
	}
	return nil
}

// cacheFrom takes one --cache-from.
func (b *Build) cacheFrom(r *request.Build, given string, from From) (at request.CachePlace, err error) {
	if given != "" && !strings.ContainsAny(given, "=,") {
		given = "type=registry,ref=" + given // docker's short form
	}
	c := cacheFlag{flag: "cache-from", r: r, from: from}
	if err := c.read(given); err != nil {
		return at, err
	}
	return c.place()
}

// cacheTo takes one --cache-to.
func (b *Build) cacheTo(r *request.Build, given string, from From) (to request.CacheTarget, err error) {
	c := cacheFlag{flag: "cache-to", r: r, from: from, to: &to, format: b.result.compression}
	to.Copies, to.Others = true, true
	if err := c.read(given); err != nil {
		return to, err
	}
	to.CachePlace, err = c.place()
	return to, err
}

// cacheFlag is one --cache-from or --cache-to on its way.
type cacheFlag struct {
	flag   string
	r      *request.Build
	from   From
	kind   string
	ref    string               // or directory
	plain  bool                 // the registry is reached by plain HTTP
	format string               // of the image's layers
	to     *request.CacheTarget // nil: --cache-from
}

func (c *cacheFlag) read(given string) error {
	attrs, err := attributes(c.flag, given, "for example type=registry,ref=registry.example.com/team/app:cache")
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if a[0] == "type" {
			c.kind = a[1]
		}
	}
	if !slices.Contains([]string{"registry", "local"}, c.kind) {
		return nil // whatever it has, place says what is wrong
	}
	for _, a := range attrs {
		if err := c.attribute(a[0], a[1]); err != nil {
			return err
		}
	}
	return nil
}

// attribute takes one attribute, as BuildKit has them.
func (c *cacheFlag) attribute(key, value string) error {
	switch {
	case key == "type":
	case key == "ref" && c.kind == "registry", key == "src" && c.kind == "local" && c.to == nil, key == "dest" && c.kind == "local" && c.to != nil:
		c.ref = value
	case key == "registry.insecure" && c.kind == "registry":
		plain, err := boolean(c.flag, key, value)
		c.plain = plain
		return err
	case c.to == nil:
		return usagef("", "--%s: %s: not supported", c.flag, key)
	case key == "mode":
		if value != "min" && value != "max" {
			return usagef("", "--%s: mode=%s: want min or max", c.flag, value)
		}
		c.to.All = value == "max"
	case key == "ignore-error":
		ignore, err := boolean(c.flag, key, value)
		c.to.Strict = !ignore
		return err
	case key == "oci-mediatypes", key == "image-manifest":
		// Images in an image index, by OCI's names: what registries take that need either.
		v, err := boolean(c.flag, key, value)
		if err == nil && !v && key == "oci-mediatypes" {
			err = usagef("", "--%s: %s=%s: not supported", c.flag, key, value)
		}
		return err
	case key == "compression":
		if value != c.format && (value != "gzip" || c.format != "") {
			return usagef("use --compression "+value, "--%s: compression=%s: cached layers are those of the image", c.flag, value)
		}
	default:
		return usagef("", "--%s: %s: not supported", c.flag, key)
	}
	return nil
}

// place settles what the flag names.
func (c *cacheFlag) place() (at request.CachePlace, err error) {
	switch c.kind {
	case "registry":
	case "local":
		return resultLayout(c.flag, c.ref, c.r, c.from)
	case "inline", "gha", "s3", "azblob":
		return at, usagef("use type=registry or type=local", "--%s: type=%s is not supported", c.flag, c.kind)
	case "":
		return at, usagef("for example type=registry,ref=registry.example.com/team/app:cache", "--%s: type is missing", c.flag)
	default:
		return at, usagef("", "--%s: type=%s: unknown: want registry or local", c.flag, c.kind)
	}
	switch {
	case c.ref == "":
		return at, usagef("", "--%s: type=registry: ref is missing", c.flag)
	case strings.Contains(c.ref, "://") || !isRepository(c.ref) && !strings.Contains(c.ref, "@"):
		return at, usagef("", "--%s: %q: not a reference", c.flag, c.ref)
	case c.to != nil && strings.Contains(c.ref, "@"):
		return at, usagef("name a tag", "--%s: %q: a digest cannot be pushed to", c.flag, c.ref)
	}
	if c.plain {
		plainHTTP(c.r, c.ref)
	}
	return request.CachePlace{Reference: c.ref}, nil
}
