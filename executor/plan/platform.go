package plan

import (
	"path"
	"slices"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func toOCI(p v1.Platform) ocispec.Platform {
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

func fromOCI(p ocispec.Platform) v1.Platform {
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

// platformArgs are the predefined arguments, in BuildKit's order.
func platformArgs(build, target ocispec.Platform, stage string) [][2]string {
	return [][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platforms.FormatAll(target)},
		{"TARGETOS", target.OS},
		{"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture},
		{"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	}
}

// platform writes the platform that was asked for into the target's config.
func (m *maker) platform(d *draft) {
	img, t := d.Image, m.target
	if !m.implicit {
		same := t.OS == img.OS && t.Architecture == img.Architecture
		img.OS, img.Architecture = t.OS, t.Architecture
		if t.Variant != "" || !same {
			img.Variant = t.Variant
		}
		if t.OSVersion != "" || !same {
			img.OSVersion = t.OSVersion
		}
		if t.OSFeatures != nil {
			img.OSFeatures = slices.Clone(t.OSFeatures)
		}
	}
	n := platforms.Normalize(ocispec.Platform{
		OS: img.OS, Architecture: img.Architecture, Variant: img.Variant, OSVersion: img.OSVersion, OSFeatures: img.OSFeatures,
	})
	img.OS, img.Architecture, img.Variant, img.OSVersion, img.OSFeatures = n.OS, n.Architecture, n.Variant, n.OSVersion, n.OSFeatures
}

// crossing says in a step's name what a stage of platform base is making
// something for: ->arm64 where the target's arguments are declared.
func crossing(base ocispec.Platform, env shell.EnvGetter) string {
	target, ok := targetOf(env)
	if !ok {
		return ""
	}
	if target.OS == "" {
		target.OS = base.OS
	}
	if target.Architecture == "" {
		target.Architecture = base.Architecture
	}
	switch p := platforms.Normalize(target); {
	case p.OS != base.OS:
		return "->" + platforms.FormatAll(p)
	case p.Architecture != base.Architecture:
		return "->" + path.Join(p.Architecture, p.Variant)
	}
	return ""
}

// targetOf is the platform that the TARGET arguments in scope name.
func targetOf(env shell.EnvGetter) (p ocispec.Platform, ok bool) {
	for _, name := range env.Keys() {
		v, _ := env.Get(name)
		switch name {
		case "TARGETPLATFORM":
			if p, err := platforms.Parse(v); err == nil {
				return p, true
			}
		case "TARGETOS":
			p.OS, ok = v, true
		case "TARGETARCH":
			p.Architecture, ok = v, true
		case "TARGETVARIANT":
			p.Variant, ok = v, true
		}
	}
	return p, ok
}
