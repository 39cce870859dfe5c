package flags

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Warm holds the flags of `cache warm`, which are those of Kaniko's warmer.
type Warm struct {
	// Force: also what is there is pulled.
	Force bool

	build      *Build
	images     []string
	dockerfile string
}

// RegisterWarm adds the flags to fs.
func RegisterWarm(fs *pflag.FlagSet) *Warm {
	w := &Warm{build: &Build{set: fs}}
	b := w.build
	fs.SetNormalizeFunc(longNames)
	fs.VarP(listValue{&w.images}, "image", "i", "fetch the layers of this `image`; may be repeated")
	fs.StringVarP(&w.dockerfile, "dockerfile", "d", "", "fetch the base images that the last stage of this `Dockerfile` stands on or copies from; - is standard input, https:// is downloaded")
	fs.Var(pairsValue{&b.source.args}, "build-arg", "value of an ARG; a name alone takes that environment variable, if it is set")
	fs.Var(listValue{&b.source.platforms}, "platform", "the `platform`, os/arch[/variant] (default: this machine's); may be repeated")
	fs.Var(listValue{&b.source.platforms}, "custom-platform", "the same as --platform `platform`")
	alias(fs, "custom-platform", "customPlatform")
	group(fs, groupSource, "image", "dockerfile", "build-arg", "platform", "custom-platform")
	b.registerPull()
	fs.StringVarP(&b.caches.dir, "cache-dir", "c", "", "keep them in this `directory` (default: kbuild-sandbox in $XDG_CACHE_HOME or ~/.cache)")
	fs.StringVar(&b.caches.layers, "cache-max-size", layersSize, "`size` of all layers that are kept there; the least recently used go first")
	fs.BoolVarP(&w.Force, "force", "f", false, "pull also what is there")
	fs.VarPF(needlessValue{needless{"cache-ttl", false, "", "layers are kept by their digests, and do not grow old"}, &b.compat.ignored}, "cache-ttl", "", "").Hidden = true
	b.caches.size = cacheSize
	return w
}

// Request makes the request, and the Dockerfile of --image.
func (w *Warm) Request(from From) (r request.Build, dockerfile []byte, err error) {
	b := w.build
	images := append(append([]string(nil), w.images...), from.Args...)
	switch {
	case len(images) > 0 && w.dockerfile != "":
		return r, nil, usagef("fetch them one after the other", "--dockerfile cannot be used together with images")
	case len(images) == 0 && w.dockerfile == "":
		return r, nil, usagef("for example kbuild-sandbox cache warm --image debian:12", "you must provide --image or --dockerfile")
	}
	r = request.Build{Version: request.Version, Call: request.CallWarm, NoPush: true}
	for _, step := range []func(*request.Build, From) error{b.arguments, b.platforms, b.cacheOptions, b.registries} {
		if err := step(&r, from); err != nil {
			return r, nil, err
		}
	}
	if w.dockerfile != "" {
		return r, nil, w.named(&r, from)
	}
	dockerfile, err = imagesDockerfile(&r, images)
	return r, dockerfile, err
}

// named settles what --dockerfile names.
func (w *Warm) named(r *request.Build, from From) error {
	r.DockerfileName = w.dockerfile
	switch name := w.dockerfile; {
	case name == Stdin:
		r.Dockerfile, r.DockerfileName = Stdin, "<stdin>"
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		r.DockerfileURL, r.DockerfileName = name, shown(name)
	default:
		path := absolute(from.Dir, name)
		if _, err := isDockerfile(path, name); err != nil {
			return err
		}
		return laidOut(r, path, filepath.Dir(path))
	}
	return nil
}

// imagesDockerfile is a Dockerfile that stands on images, which are what the command
// line names: it has not one word of theirs.
func imagesDockerfile(r *request.Build, images []string) ([]byte, error) {
	var stages, copies strings.Builder
	for n, image := range images {
		name := fmt.Sprintf("image%d", n)
		if image == "" || strings.Contains(image, "://") {
			return nil, usagef("for example debian:12", "--image: %q: not a reference", image)
		}
		r.Contexts = append(r.Contexts, request.NamedContext{Name: name, Image: image})
		fmt.Fprintf(&stages, "FROM %s AS stage%d\n", name, n)
		fmt.Fprintf(&copies, "COPY --from=stage%d / /\n", n)
	}
	r.DockerfileName = "--image"
	return []byte(stages.String() + "FROM scratch\n" + copies.String()), nil
}

// LayerLimit bounds the layers that are kept, in bytes.
func (w *Warm) LayerLimit() int64 { return w.build.caches.limit }

// Warnings are lines about flags that were taken and change nothing.
func (w *Warm) Warnings() []string { return w.build.Warnings() }

// Size reads a size as all flags do: bytes, or with a unit, 20g.
func Size(s string) (int64, error) { return parseSize(s) }
