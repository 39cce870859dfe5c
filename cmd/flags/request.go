package flags

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// From is where a command line was given.
type From struct {
	// Args are the arguments that are no flags: at most one, the context.
	Args []string
	// Dir is the current directory, absolute.
	Dir string
	// Context is the context where none is given; empty: there has to be one.
	Context string
	// CacheDir is where cache mounts are kept if nothing is said; empty: nowhere.
	CacheDir string
	// KeepsSteps: what steps have made can be kept in the cache directory.
	KeepsSteps bool
	// HostGateway is the address that host-gateway stands for in --add-host; zero:
	// there is none.
	HostGateway netip.Addr
	// Env looks up an environment variable.
	Env func(name string) (string, bool)
}

// Stdin in place of a Dockerfile's path stands for standard input.
const Stdin = "-"

// hostGateway is docker's name of the host's address, as steps see it.
const hostGateway = "host-gateway"

// sourceDateEpoch is the build argument with the image's time. As with docker
// buildx the environment has it where no --build-arg does.
const sourceDateEpoch = "SOURCE_DATE_EPOCH"

// unset names the image of a tar that has no destination, as Kaniko does.
const unset = "docker.io/unset-repo/unset-image-name"

// Request makes a build of the flags, after fs.Parse. Context, Dockerfile (or
// Stdin) and Ignore of the result are absolute paths on the machine where the
// command line was given; a launcher moves them into the sandbox. Workspace is
// left empty. Errors are of type *Error.
func (b *Build) Request(from From) (request.Build, Outputs, error) {
	if len(b.refused) > 0 {
		return request.Build{}, Outputs{}, refusal(b.refused)
	}
	if err := b.exports(); err != nil {
		return request.Build{}, Outputs{}, err
	}
	r := request.Build{
		Version:      request.Version,
		Destinations: b.result.destinations,
		Format:       b.result.format,
		Compression:  request.Compression{Algorithm: b.result.compression, Level: b.result.level},
	}
	// What is wrong as written comes before what is not there.
	for _, step := range []func(*request.Build, From) error{
		b.calls, b.push, b.arguments, b.target, b.platforms, b.runOptions, b.secretsAndAgents, b.imageOptions,
		b.cacheOptions, b.limitOptions, b.compatibility, b.combinations, b.registries, b.paths, b.lentFiles, b.namedContexts, b.cachePlaces,
	} {
		if err := step(&r, from); err != nil {
			return request.Build{}, Outputs{}, err
		}
	}
	if r.Call != "" {
		return r, Outputs{}, nil
	}
	out, err := b.result.files.resolve(from.Dir, string(r.Context))
	if err != nil {
		return request.Build{}, Outputs{}, err
	}
	return r, out, nil
}

// push settles where the image goes.
func (b *Build) push(r *request.Build, from From) error {
	if r.Call != "" {
		r.NoPush, r.Destinations = true, nil
		return nil
	}
	r.NoPush = b.result.noPush
	if v, _ := from.Env("KANIKO_NO_PUSH"); v != "" && !b.set.Changed("no-push") {
		no, err := strconv.ParseBool(v)
		if err != nil {
			return usagef("", "invalid value (true/false) for KANIKO_NO_PUSH environment variable: %q", v)
		}
		r.NoPush = no
	}
	if err := b.pushing(r.NoPush); err != nil {
		return err
	}
	if !r.NoPush && len(r.Destinations) == 0 {
		return usagef("for example --destination registry.example.com/team/app:1", "you must provide --destination, or use --no-push")
	}
	if len(r.Destinations) == 0 && b.result.files.NameDigest != "" {
		return usagef("", "you must provide --destination if setting --image-name-with-digest-file")
	}
	if len(r.Destinations) == 0 && b.result.files.NameTagDigest != "" {
		return usagef("", "you must provide --destination if setting --image-name-tag-with-digest-file")
	}
	for _, d := range r.Destinations {
		if err := checkDestination(d); err != nil {
			return err
		}
	}
	r.Tar = b.result.files.Tar != ""
	r.Layout = b.result.files.Layout != ""
	if r.Tar && len(r.Destinations) == 0 {
		r.Destinations = []string{unset}
	}
	return nil
}

// checkDestination finds what people get wrong; the grammar of references is
// the executor's.
func checkDestination(d string) error {
	switch {
	case d == "":
		return usagef("a CI variable may be unset", "--destination: empty")
	case strings.Contains(d, "://"):
		return usagef("", "--destination: %q: a reference has no scheme: write %s", d, d[strings.Index(d, "://")+3:])
	case strings.Contains(d, "@"):
		return usagef("a digest is what the push answers; name a tag", "--destination: %q: a destination cannot have a digest", d)
	case strings.Contains(d, ","):
		return usagef("repeat the flag for several destinations", "--destination: %q: not a reference", d)
	case strings.Trim(d, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:[]") != "":
		return usagef("", "--destination: %q: not a reference", d)
	case !isRepository(d):
		return usagef("", "--destination: %q: not a reference: a repository has lower case letters, digits and ._-/ only", d)
	}
	return nil
}

// isRepository looks at what stands between the registry and the tag of a
// reference.
func isRepository(ref string) bool {
	first, name, more := strings.Cut(ref, "/")
	if !more || !strings.ContainsAny(first, ".:") && first != "localhost" {
		name = ref
	}
	name, tag, _ := strings.Cut(name, ":")
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-/") == "" && !strings.ContainsAny(tag, ":/[]")
}

// arguments takes the build arguments and labels, and what some arguments mean
// beside their value, as docker has it.
func (b *Build) arguments(r *request.Build, from From) error {
	for _, a := range b.source.args {
		if !a.given {
			value, ok := from.Env(a.Key)
			if !ok {
				continue
			}
			a.Value = value
		}
		r.Args = append(r.Args, a.KeyValue)
	}
	epoch := false
	for _, a := range r.Args {
		switch a.Key {
		case "BUILDKIT_SANDBOX_HOSTNAME":
			r.Run.Hostname = a.Value
		case sourceDateEpoch:
			epoch = true
		}
	}
	if v, _ := from.Env(sourceDateEpoch); v != "" && !epoch {
		r.Args = append(r.Args, request.KeyValue{Key: sourceDateEpoch, Value: v})
	}
	for _, l := range b.source.labels {
		r.Labels = append(r.Labels, l.KeyValue)
	}
	return nil
}

func (b *Build) target(r *request.Build, _ From) error {
	if len(b.source.targets) > 1 {
		return usagef("build them one after the other", "--target: several stages: not supported yet")
	}
	if len(b.source.targets) == 1 {
		r.Target = b.source.targets[0]
	}
	return nil
}

func (b *Build) runOptions(r *request.Build, from From) error {
	for _, h := range b.run.hosts {
		name, address, ok := strings.Cut(h, "=")
		if !ok {
			name, address, ok = strings.Cut(h, ":")
		}
		if address == hostGateway {
			if !from.HostGateway.IsValid() {
				return usagef("", "--add-host: %s: a pod has no %s", h, hostGateway)
			}
			address = from.HostGateway.String()
		}
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if !ok || name == "" || err != nil || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return usagef("", "--add-host: %q: want name:address", h)
		}
		r.Run.Hosts = append(r.Run.Hosts, request.KeyValue{Key: name, Value: ip.String()})
	}
	if b.run.shmSize == "" {
		return nil
	}
	size, err := parseSize(b.run.shmSize)
	if err != nil {
		return usagef("for example 128m", "--shm-size: %s", err)
	}
	r.Run.ShmSize = size
	return nil
}

// parseSize reads a size in bytes with docker's units: b, k, m, g, powers of 1024.
func parseSize(s string) (int64, error) {
	number := strings.ToLower(strings.TrimSpace(s))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "b"), "i")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("kmgt", number[n-1]); i >= 0 {
			shift, number = 10*(i+1), number[:n-1]
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v <= 0 || v > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return v << shift, nil
}

// combinations refuses what does not go together, as Kaniko does.
func (b *Build) combinations(r *request.Build, _ From) error {
	zstd := r.Compression.Algorithm == "zstd"
	switch {
	case zstd && r.Format == "docker":
		return usagef("zstd layers exist in OCI images only", "--compression=zstd cannot be used with --image-format=docker")
	case r.Tar && r.Format == "oci":
		return usagef("use --oci-layout-path", "--tar-path cannot be used with --image-format=oci")
	case r.Tar && zstd:
		return usagef("use --oci-layout-path", "--tar-path cannot be used with --compression=zstd")
	}
	algorithm, limit := cmp.Or(r.Compression.Algorithm, "gzip"), 9
	if zstd {
		limit = 22
	}
	if l := r.Compression.Level; l < -1 || l > limit {
		return usagef("", "--compression-level: %d: %s has the levels 1 to %d", l, algorithm, limit)
	}
	if b.remote.pushRetry < 0 || b.remote.pullRetry < 0 || b.remote.extractRetry < 0 {
		return usagef("", "--push-retry, --image-download-retry, --image-fs-extract-retry: want 0 or more")
	}
	return nil
}
