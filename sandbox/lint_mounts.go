package sandbox

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// pseudo are the file systems of the sentry's own, and the options that each
// must have.
func pseudo() map[string]struct {
	kind string
	must []string
} {
	return map[string]struct {
		kind string
		must []string
	}{
		"/proc": {"proc", []string{"nosuid", "noexec", "nodev"}},
		"/dev":  {"tmpfs", []string{"nosuid", "noexec"}},
		"/sys":  {"sysfs", []string{"nosuid", "noexec", "nodev", "ro"}},
		"/tmp":  {"tmpfs", []string{"nosuid", "nodev"}},
	}
}

var (
	// guestPlace is where files of the host may lie.
	guestPlace = regexp.MustCompile(`^/(kbuild-executor|in|context|context\.tar|contexts/(cache)?[0-9]+|caches|store)$`)
	// layerPlace is where images of layers may be mounted.
	layerPlace = regexp.MustCompile(`^` + request.LayersPath + `/[0-9]{1,4}$`)
	// plainOption are the options that weaken nothing.
	plainOption = regexp.MustCompile(`^(ro|nosuid|nodev|noexec|mode=[0-7]+|size=[0-9]+[kmg]?)$`)
)

// mounts: nothing of the host is writable, and nothing is mounted but what the
// launcher's caller named and what lies in the run's own directory.
func (b bundleText) mounts() string {
	seen := map[string]bool{}
	for _, m := range b.spec.Mounts {
		if seen[m.Destination] {
			return fmt.Sprintf("two on %q", m.Destination)
		}
		seen[m.Destination] = true
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return fmt.Sprintf("ids of %q are mapped", m.Destination)
		}
		if msg := b.mount(m); msg != "" {
			return fmt.Sprintf("%q on %q: %s", m.Source, m.Destination, msg)
		}
	}
	if !seen[guestExecutor] || !seen["/proc"] {
		return "the executor or /proc is missing"
	}
	return ""
}

func (b bundleText) mount(m specs.Mount) string {
	if m.Destination == guestWork {
		if m.Type != "bind" || m.Source != b.l.work || !slices.Equal(m.Options, []string{"rw"}) || b.spec.Annotations["dev.gvisor.spec.mount.w.source"] != m.Source {
			return "not the workspace of the sentry's own"
		}
		return ""
	}
	for _, o := range m.Options {
		if !plainOption.MatchString(o) {
			return fmt.Sprintf("option %q", o)
		}
	}
	if m.Type == layerType {
		if !layerPlace.MatchString(m.Destination) || !slices.Contains(b.c.layers, m.Source) || !slices.Contains(m.Options, "ro") {
			return "not the image of a layer"
		}
		return ""
	}
	own, ok := pseudo()[m.Destination]
	must := own.must
	if m.Type == "bind" {
		ok, must = guestPlace.MatchString(m.Destination) && b.named(m.Source), []string{"ro", "nosuid", "nodev"}
	} else if m.Type != own.kind || m.Source != own.kind {
		ok = false
	}
	if !ok {
		return "type " + m.Type + " is not known there"
	}
	for _, o := range must {
		if !slices.Contains(m.Options, o) {
			return "without " + o
		}
	}
	return ""
}

// named tells whether the caller named this path of the host, or it is one of
// the launcher's own.
func (b bundleText) named(source string) bool {
	if !path.IsAbs(source) || path.Clean(source) != source || strings.ContainsFunc(source, isControl) {
		return false
	}
	return source != b.l.dir && below(source, b.l.dir) || slices.Contains(b.callers(), source)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// callers are the paths that came with the configuration.
func (b bundleText) callers() []string {
	list := slices.Concat([]string{b.c.Executor, b.c.Context, b.c.Archive}, b.c.Contexts, b.c.CacheFrom)
	if b.c.Caches.Dir != "" {
		list = append(list, b.c.Caches.mounts())
	}
	return list
}
