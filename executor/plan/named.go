package plan

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// EmptyImage as NamedContext.Image is an empty tree, as in FROM.
const EmptyImage = "scratch"

// contexts are the named contexts by the name that they replace, in its short
// form: alpine for docker.io/library/alpine:latest. A name may end in
// ::platform and then counts for that platform only.
type contexts map[string]*NamedContext

func newContexts(list []NamedContext) (contexts, error) {
	c := contexts{}
	for _, n := range list {
		name, platform, only := strings.Cut(n.Name, "::")
		key, err := shortName(name)
		if err != nil {
			return nil, dockerfile.Errorf(request.ClassResolve, nil, "invalid context name %s: %w", n.Name, err)
		}
		if isReserved(name) {
			return nil, dockerfile.Errorf(request.ClassResolve, nil, "invalid context name %s: the name is reserved", n.Name)
		}
		if only {
			p, err := platforms.Parse(platform)
			if err != nil {
				return nil, dockerfile.Errorf(request.ClassResolve, nil, "invalid context name %s: %w", n.Name, err)
			}
			key = forPlatform(key, p)
		}
		c[key] = &n
	}
	return c, nil
}

// find returns the context that stands in for a stage or an image of a name, or
// nil. One for the platform wins.
func (c contexts) find(name string, p ocispec.Platform) *NamedContext {
	if len(c) == 0 || isReserved(name) {
		return nil
	}
	key, err := shortName(name)
	if err != nil {
		return nil // then it is no name of a context either
	}
	if n := c[forPlatform(key, p)]; n != nil {
		return n
	}
	return c[key]
}

func forPlatform(key string, p ocispec.Platform) string {
	return key + "::" + platforms.FormatAll(platforms.Normalize(p))
}

// isReserved says whether a name means something of its own in any Dockerfile.
func isReserved(name string) bool {
	return strings.EqualFold(name, EmptyImage) || strings.EqualFold(name, "context")
}

func shortName(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(ref), ":latest"), nil
}

// replace puts a named context in the place of a whole stage, if there is one
// of its name. What the Dockerfile says of that stage does not count then.
func (m *maker) replace(d *draft, name string) bool {
	if name == "" {
		return false
	}
	p := m.target
	if d.flag != nil {
		p = *d.flag
	}
	d.named = m.contexts.find(name, p)
	d.replaced = d.named != nil
	return d.replaced
}

// standIn puts a named context in the place of a stage's image, if there is
// one. more says that there is an image to resolve, of the returned key.
func (m *maker) standIn(d *draft, key imageKey) (_ imageKey, more bool) {
	if d.named == nil {
		d.named = m.contexts.find(d.baseName, d.platform)
	}
	if d.named == nil {
		return key, true
	}
	d.shown = 0 // FROM is no step then, though it is counted
	switch {
	case d.named.Image == EmptyImage:
	case d.named.Image == "":
		d.Base.Named = d.named.Name
	default:
		key.ref = d.named.Image
		return key, true
	}
	d.Image = scratchImage(d.platform)
	return key, false
}

// from is where a COPY or a mount finds the files that a draft stands for.
func (d *draft) from() From {
	if d.Base.Named != "" && d.isBare() {
		return From{Kind: FromNamed, Name: d.Base.Named}
	}
	return From{Kind: FromStage, Stage: d.Stage}
}

// isBare says whether a draft is nothing but its base: no instruction of it
// counts.
func (d *draft) isBare() bool { return d.isImage || d.replaced }

// layerOfNamed adds the entry that a layer of files of a named context lacks in
// history. As in BuildKit, where history is shorter than the list of layers, it
// comes last and is called like the last layer.
func layerOfNamed(target *Stage) {
	name := ""
	for s := target; s != nil; s = s.Base.Stage {
		if n := len(s.Steps); n > 0 && name == "" {
			name = s.Steps[n-1].Name
		}
		if s.Base.Named == "" {
			continue
		}
		if name == "" {
			name = fmt.Sprintf("[context %s] load from client", s.Base.Named)
		}
		target.Image.History = append(target.Image.History, History{CreatedBy: name, Comment: exporterComment})
	}
}

// exporterComment is what BuildKit's exporter leaves with the entries that it
// adds.
const exporterComment = "buildkit.exporter.image.v0"
