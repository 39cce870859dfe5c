package flags

import (
	"runtime"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// platforms settles what the image is for. What a base image offers is seen
// later.
func (b *Build) platforms(r *request.Build, _ From) error {
	for _, given := range b.source.platforms {
		for name := range strings.SplitSeq(given, ",") {
			p, ok := platform(name)
			switch {
			case !ok:
				return usagef("for example linux/"+runtime.GOARCH, "--platform: %q: want os/arch[/variant]", name)
			case strings.HasPrefix(p, "windows/"):
				return usagef("", "--platform: %s: images for windows are not supported", p)
			case !slices.Contains(r.Platforms, p):
				r.Platforms = append(r.Platforms, p)
			}
		}
	}
	return nil
}

// platform is the normal form of a platform's name, that of containerd's
// package platforms, which would bring a logger into the launcher; the tests
// hold the two together. "local" is this machine's, as with docker buildx.
func platform(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "local" {
		name = runtime.GOARCH
	}
	parts := strings.Split(name, "/")
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return "", false
		}
	}
	switch {
	case len(parts) > 3:
		return "", false
	case len(parts) == 1 && name == "linux":
		parts = []string{name, runtime.GOARCH}
	case len(parts) == 1:
		parts = []string{"linux", name}
	case parts[0] == "macos":
		parts[0] = "darwin"
	}
	variant := ""
	if len(parts) == 3 {
		variant = parts[2]
	}
	arch, variant := architecture(parts[1], variant)
	if name == parts[1] && !slices.Contains(knownArchitectures[:], arch) {
		return "", false
	}
	return strings.TrimSuffix(parts[0]+"/"+arch+"/"+variant, "/"), true
}

// architecture is the normal form of an architecture with its variant.
func architecture(arch, variant string) (string, string) {
	switch arch {
	case "i386":
		return "386", ""
	case "x86_64", "x86-64", "amd64":
		if variant == "v1" {
			variant = ""
		}
		return "amd64", variant
	case "aarch64", "arm64":
		if variant == "8" || variant == "v8" || variant == "v8.0" {
			variant = ""
		}
		return "arm64", variant
	case "armhf":
		return "arm", "v7"
	case "armel":
		return "arm", "v6"
	case "arm":
		switch variant {
		case "":
			variant = "v7"
		case "5", "6", "7", "8":
			variant = "v" + variant
		}
	}
	return arch, variant
}

// knownArchitectures may be named without a system.
var knownArchitectures = [...]string{
	"386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
}
