package flags

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// named are the named contexts, and what is said of the main one beside its
// place.
type named struct {
	contexts []pair
	subPath  string
	git      []string
}

func (b *Build) registerNamed() {
	fs, n := b.set, &b.named
	fs.Var(pairsValue{&n.contexts}, "build-context", "a further context for FROM, --from and from=: `name=value` with a directory, docker-image://, oci-layout://, a git repository or the URL of an archive; may be repeated")
	fs.StringVar(&n.subPath, "context-sub-path", "", "the `directory` of the context to use instead of its root")
	fs.StringSliceVar(&n.git, "git", nil, "for --context git://: `branch=name`, recurse-submodules=true")
	group(fs, groupSource, "build-context", "context-sub-path", "git")
}

// namedContexts takes --build-context. What a name may be, and what it
// replaces, is the executor's to say.
func (b *Build) namedContexts(r *request.Build, from From) error {
	for _, p := range b.named.contexts {
		if !p.given || p.Value == "" {
			return usagef("for example --build-context assets=./assets", "--build-context: %q: want name=value", p.Key)
		}
		n, err := namedContext(p.Value, string(r.Context), from)
		if err != nil {
			return err
		}
		n.Name = p.Key
		r.Contexts = append(slices.DeleteFunc(r.Contexts, func(old request.NamedContext) bool { return old.Name == n.Name }), n)
	}
	return nil
}

// namedContext makes sense of one value. context is the main context, if that
// is a directory.
func namedContext(value, context string, from From) (request.NamedContext, error) {
	scheme, rest, _ := strings.Cut(value, "://")
	if rest == "" {
		scheme = ""
	}
	wrong := func(hint, format string, args ...any) (request.NamedContext, error) {
		return request.NamedContext{}, usagef(hint, "--build-context: "+format, args...)
	}
	switch scheme {
	case "docker-image":
		return request.NamedContext{Image: rest}, nil
	case "oci-layout":
		return layout(rest, context, from)
	case "http", "https", "git", "ssh":
		return request.NamedContext{Source: request.Source{URL: value}}, nil
	case "":
	default:
		return wrong("", "%s: %s:// is not supported", shown(value), scheme)
	}
	for _, kind := range []string{"target:", "input:", "local:"} {
		if strings.HasPrefix(value, kind) {
			return wrong("build it on its own, and name the image with docker-image:// or oci-layout://", "%s: %s contexts are not supported", value, kind)
		}
	}
	if strings.HasSuffix(value, "://") {
		return wrong("", "%s: nothing is named", value)
	}
	if _, err := os.Stat(absolute(from.Dir, value)); err != nil && scpStyle.MatchString(value) {
		return request.NamedContext{Source: request.Source{URL: value}}, nil
	}
	real, err := theirDir(value, context, from)
	if err != nil {
		return request.NamedContext{}, inputf("", "--build-context: %s: %s", value, err)
	}
	return request.NamedContext{Dir: request.GuestPath(real)}, nil
}

// layout is oci-layout://DIRECTORY[:TAG][@DIGEST].
func layout(value, context string, from From) (request.NamedContext, error) {
	path, digest, _ := strings.Cut(value, "@")
	path, tag, _ := strings.Cut(path, ":")
	real, err := theirDir(path, context, from)
	if err == nil {
		_, err = os.Lstat(filepath.Join(real, "oci-layout"))
	}
	if err != nil {
		return request.NamedContext{}, inputf("want oci-layout://DIRECTORY[:TAG][@DIGEST]", "--build-context: %s: no OCI layout: %s", path, reason(err))
	}
	ref := tag
	if digest != "" {
		ref = digest // as with the name of an image, a digest says it all
	}
	return request.NamedContext{Layout: request.GuestPath(real), Ref: ref}, nil
}

// theirDir is realDir for a directory that may lie in the main context, too.
func theirDir(path, context string, from From) (string, error) {
	real, err := realDir(path, from.Dir)
	if err == nil && context != "" {
		_, err = stays(absolute(from.Dir, path), context)
	}
	return real, err
}
