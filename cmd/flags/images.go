package flags

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// multiPlatform is the build argument of BuildKit's that asks for an image
// index for one platform, too.
const multiPlatform = "BUILDKIT_MULTI_PLATFORM"

// images says how images are put together.
type images struct {
	annotations      []string
	rewriteTimestamp bool
	reproducible     bool
}

func (b *Build) registerImages() {
	fs, i := b.set, &b.images
	fs.Var(annotationValue{listValue{&i.annotations}}, "annotation", "annotation of the image; its type, with a platform or not, may stand before it: manifest, index, manifest-descriptor, index-descriptor")
	fs.BoolVar(&i.rewriteTimestamp, "rewrite-timestamp", false, "bring the times of files in new layers down to SOURCE_DATE_EPOCH")
	fs.BoolVar(&i.reproducible, "reproducible", false, "--rewrite-timestamp to 1970-01-01, the image's own time too, unless SOURCE_DATE_EPOCH is given")
	group(fs, groupResult, "annotation", "rewrite-timestamp", "reproducible")
}

// annotationValue is a listValue that says what it wants.
type annotationValue struct{ listValue }

func (annotationValue) Type() string { return "[type:]key=value" }

// imageOptions settles the image's times, whether there is an index, and what
// they are annotated with.
func (b *Build) imageOptions(r *request.Build, from From) error {
	r.RewriteTimestamp = b.images.rewriteTimestamp || b.images.reproducible
	if b.images.reproducible {
		r.Created = time.Unix(0, 0).UTC()
	}
	if err := index(r); err != nil {
		return err
	}
	if err := b.attestation(r, from); err != nil {
		return err
	}
	for _, given := range b.images.annotations {
		if given == "" { // an unset variable of a CI job, as with docker buildx
			continue
		}
		list, err := annotations(given)
		if err != nil {
			return err
		}
		r.Annotations = append(r.Annotations, list...)
	}
	for _, a := range r.Annotations {
		if err := fits(a, r); err != nil {
			return err
		}
	}
	return nil
}

// index settles whether the result is an image index.
func index(r *request.Build) error {
	several := len(r.Platforms) > 1
	r.Index = several
	for _, a := range r.Args {
		if a.Key != multiPlatform || a.Value == "" {
			continue
		}
		var err error
		if r.Index, err = strconv.ParseBool(a.Value); err != nil {
			return usagef("", "--build-arg: %s: %q: want true or false", multiPlatform, a.Value)
		}
	}
	if several && !r.Index {
		return usagef("", "--build-arg: %s=false cannot be used with several platforms", multiPlatform)
	}
	if r.Index && r.Tar {
		return usagef("use --oci-layout-path", "--tar-path cannot be used with several platforms: a docker-save tar holds one image")
	}
	return nil
}

// annotationType is a type with a platform or without, as docker buildx reads it.
var annotationType = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/.-]+)\])?$`)

// annotations reads one --annotation: [type[platform],...:]key=value.
func annotations(given string) ([]request.Annotation, error) {
	const hint = "for example manifest[linux/arm64]:org.opencontainers.image.title=app"
	key, value, ok := strings.Cut(given, "=")
	if !ok {
		return nil, usagef(hint, "--annotation: %q: want key=value", given)
	}
	types, name, typed := strings.Cut(key, ":")
	if !typed {
		types, name = string(request.OnManifest), key
	}
	if name == "" || strings.ContainsAny(name, " \t\r\n") {
		return nil, usagef(hint, "--annotation: %q: %q is no key", given, name)
	}
	var list []request.Annotation
	for t := range strings.SplitSeq(types, ",") {
		m := annotationType.FindStringSubmatch(t)
		if m == nil {
			return nil, usagef(hint, "--annotation: %q: want a type, with a platform in brackets or without", t)
		}
		a := request.Annotation{Level: request.AnnotationLevel(m[1]), KeyValue: request.KeyValue{Key: name, Value: value}}
		switch a.Level {
		case request.OnIndex, request.OnIndexDescriptor: // of all platforms, whatever is written
		case request.OnManifest, request.OnManifestDescriptor:
			if a.Platform, ok = platform(m[2]); !ok && m[2] != "" {
				return nil, usagef(hint, "--annotation: %q: want os/arch[/variant]", m[2])
			}
		default:
			return nil, usagef("the types are manifest, index, manifest-descriptor and index-descriptor", "--annotation: %q: unknown type", t)
		}
		list = append(list, a)
	}
	return list, nil
}

// fits refuses an annotation that there is no place for.
func fits(a request.Annotation, r *request.Build) error {
	onIndex := a.Level == request.OnIndex || a.Level == request.OnIndexDescriptor
	there := r.Platforms
	if here, ok := platform("local"); ok && len(there) == 0 {
		there = []string{here}
	}
	switch {
	case onIndex && !r.Index:
		return usagef("--build-arg "+multiPlatform+"=1 makes an index for one platform",
			"--annotation: %s: index annotations need an index, and this build is for one platform", a.Key)
	case r.Format == "docker" && a.Level != request.OnManifest:
		return usagef("use --image-format=oci", "--annotation: %s: annotations of type %s cannot be used with --image-format=docker", a.Key, a.Level)
	case a.Platform != "" && !slices.Contains(there, a.Platform):
		return usagef("it is built for "+strings.Join(there, ", "), "--annotation: %s: nothing is built for %s", a.Key, a.Platform)
	}
	return nil
}
