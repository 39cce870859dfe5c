package provenance

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// external is the request without credentials, and without what only max tells.
func (b Build) external(deps []dependency) External {
	r := b.Request
	out := External{
		ConfigSource: ConfigSource{Path: redactURL(r.DockerfileName)},
		Request:      Request{Frontend: "dockerfile.v0", Args: b.args(), Locals: b.locals(), Allow: r.Allow, Registry: b.registry()},
	}
	if r.Source.URL != "" {
		out.ConfigSource.URI = redactURL(r.Source.URL)
		out.ConfigSource.Digest = digestFor(deps, out.ConfigSource.URI)
	} else if r.DockerfileURL != "" {
		out.ConfigSource.URI = redactURL(r.DockerfileURL)
		out.ConfigSource.Digest = digestFor(deps, out.ConfigSource.URI)
	}
	if b.Max {
		out.Request.Secrets, out.Request.SSH = named(r.Secrets), named(r.Agents)
	}
	return out
}

// leavesOut tells whether min says less than there is.
func (b Build) leavesOut() bool {
	r := b.Request
	return len(r.Args)+len(r.Labels)+len(r.Secrets)+len(r.Agents) > 0
}

// args are the parameters of the build under BuildKit's names.
func (b Build) args() map[string]string {
	r, out := b.Request, map[string]string{}
	set := func(key, value string) {
		if value != "" {
			out[key] = b.text(value)
		}
	}
	set("target", r.Target)
	set("force-network-mode", r.Run.Network)
	set("hostname", r.Run.Hostname)
	if r.NoCache {
		out["no-cache"] = ""
	} else {
		set("no-cache", strings.Join(r.NoCacheFilter, ","))
	}
	if r.Run.ShmSize > 0 {
		out["shm-size"] = strconv.FormatInt(r.Run.ShmSize, 10)
	}
	hosts := make([]string, 0, len(r.Run.Hosts))
	for _, h := range r.Run.Hosts {
		hosts = append(hosts, h.Key+"="+h.Value)
	}
	set("add-hosts", strings.Join(hosts, ","))
	for _, c := range r.Contexts {
		out["context:"+c.Name] = contextURI(c)
	}
	if b.Max {
		for _, a := range r.Args {
			out["build-arg:"+a.Key] = b.text(a.Value)
		}
		for _, l := range r.Labels {
			out["label:"+l.Key] = b.text(l.Value)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// text is a text of the user's without credentials.
func (b Build) text(s string) string {
	s = redactText(s)
	if b.Mask != nil {
		s = b.Mask(s)
	}
	return s
}

// contextURI is a named context in BuildKit's words. Of a local one its name is
// told, not its place.
func contextURI(c request.NamedContext) string {
	switch {
	case c.Image != "":
		return "docker-image://" + redactText(c.Image)
	case c.Layout != "":
		return "oci-layout://" + c.Name
	case c.Source.URL != "":
		return redactURL(c.Source.URL)
	}
	return "local:" + c.Name
}

// locals are the trees and files of the user's machine that the build could
// read.
func (b Build) locals() []Local {
	r := b.Request
	var out []Local
	if r.Context != "" || r.Source.Tar != "" {
		out = append(out, Local{"context"})
	}
	if r.Dockerfile == "-" || filepath.IsAbs(string(r.Dockerfile)) { // else it lies in the context
		out = append(out, Local{"dockerfile"})
	}
	for _, c := range r.Contexts {
		if c.Dir != "" || c.Layout != "" || c.Source.Tar != "" {
			out = append(out, Local{c.Name})
		}
	}
	return out
}

// registry is what stood in for registries; nil: nothing.
func (b Build) registry() *Registry {
	r := b.Request.Registry
	hosts := slices.Concat(r.InsecureHosts, r.SkipTLSHosts)
	if r.InsecurePull || r.SkipTLSPull {
		hosts = append(hosts, "*")
	}
	slices.Sort(hosts)
	out := Registry{Mirrors: r.Maps, Insecure: slices.Compact(hosts)}
	if len(out.Mirrors)+len(out.Insecure) == 0 {
		return nil
	}
	return &out
}

func named(ids []string) []Named {
	var out []Named
	for _, id := range slices.Sorted(maps.Keys(setOf(ids))) {
		out = append(out, Named{id})
	}
	return out
}

func setOf(ids []string) map[string]bool {
	set := map[string]bool{}
	for _, id := range ids {
		set[id] = true
	}
	return set
}
