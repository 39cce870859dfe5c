package flags

import (
	"strings"

	"github.com/spf13/pflag"
)

// Build holds the flags of one build as they were given. Request makes sense
// of them.
type Build struct {
	set     *pflag.FlagSet
	source  source
	result  result
	remote  remote
	run     run
	lending lending
	named   named
	images  images
	call    call
	caches  caches
	places  places
	limits  limits
	compat  compat
	attest  *Attest // nil: nobody stands outside to attest
	refused []*refused
}

// source says what to build.
type source struct {
	context    string
	dockerfile string
	targets    []string
	args       []pair
	labels     []pair
	platforms  []string
}

// result says what comes out.
type result struct {
	destinations []string
	noPush       bool
	compression  string
	level        int
	format       string
	files        Outputs
}

// remote says how registries are reached.
type remote struct {
	insecure, insecurePull, skipTLS bool
	skipTLSPull, skipFallback       bool
	insecureHosts, skipTLSHosts     []string
	certificates                    []pair
	maps, mirrors                   []string
	pushRetry, pullRetry            int
	extractRetry                    int
}

// run says what RUN steps see.
type run struct {
	hosts   []string
	shmSize string
}

// The groups of flags in the help, in this order.
const (
	groupSource = "What to build"
	groupResult = "What comes out"
	groupRemote = "Registries"
	groupRun    = "RUN steps"
	groupNet    = "Network"
	groupLimits = "Limits"
	groupLog    = "What you see"
	groupOther  = "Other"
)

const groupKey = "group"

// helpColumns is the width of the help.
const helpColumns = 100

// Register adds the flags of a build to fs, and, hidden, every other flag of
// Kaniko's so that it can be refused by name. A flag that fs already has is
// left alone: register your own first.
func Register(fs *pflag.FlagSet) *Build {
	b := &Build{set: fs}
	fs.SetNormalizeFunc(longNames)
	b.registerSource()
	b.registerResult()
	b.registerRemote()
	b.registerRun()
	b.registerSecrets()
	b.registerNamed()
	b.registerImages()
	b.registerCall()
	b.registerCaches()
	b.registerPlaces()
	b.registerLimits()
	b.registerCompat()
	for _, r := range refusedFlags() {
		if fs.Lookup(r.name) != nil {
			continue
		}
		f := fs.VarPF(refusedValue{r, &b.refused}, r.name, r.short, "not supported yet")
		f.Hidden = true
		if r.alone {
			f.NoOptDefVal = "true"
		}
	}
	return b
}

func (b *Build) registerSource() {
	fs, s := b.set, &b.source
	fs.StringVarP(&s.dockerfile, "dockerfile", "f", "Dockerfile", "the Dockerfile's `path`, from the current directory, else from the context; - is standard input, https:// is downloaded")
	fs.StringVarP(&s.context, "context", "c", "", "the context: a `directory` or dir://, tar://file, - or tar://stdin, https:// of an archive, a git repository")
	fs.Var(pairsValue{&s.args}, "build-arg", "value of an ARG; a name alone takes that environment variable, if it is set")
	fs.StringSliceVar(&s.targets, "target", nil, "the `stage` to build, by name (default: the last)")
	fs.Var(pairsValue{&s.labels}, "label", "label of the image")
	fs.Var(listValue{&s.platforms}, "platform", "the target `platform`, os/arch[/variant] (default: this machine's); of several, repeated or after commas, the result is an image index")
	fs.Var(listValue{&s.platforms}, "custom-platform", "the same as --platform `platform`")
	group(fs, groupSource, "dockerfile", "context", "build-arg", "target", "label", "platform", "custom-platform")
	alias(fs, "custom-platform", "customPlatform")
}

func (b *Build) registerResult() {
	fs, r := b.set, &b.result
	fs.VarP(listValue{&r.destinations}, "destination", "d", "push the image to this `reference`; may be repeated")
	fs.VarP(listValue{&r.destinations}, "tag", "t", "the same as --destination `reference`")
	fs.BoolVar(&r.noPush, "no-push", false, "push nothing; tar, layout and files are still written (also: KANIKO_NO_PUSH)")
	fs.StringVar(&r.files.Tar, "tar-path", "", "write the image as docker-save tar to this `file`")
	fs.StringVar(&r.files.Layout, "oci-layout-path", "", "write the image as OCI layout to this `directory`")
	fs.StringVar(&r.files.Digest, "digest-file", "", "write the image's digest to this `file`")
	fs.StringVar(&r.files.ID, "iidfile", "", "write the digest of the image's config, docker's image ID, to this `file`")
	fs.StringVar(&r.files.Metadata, "metadata-file", "", "write names and digests as JSON, as docker buildx does, to this `file`")
	fs.StringVar(&r.files.NameDigest, "image-name-with-digest-file", "", "write repository@digest of each destination to this `file`")
	fs.StringVar(&r.files.NameTagDigest, "image-name-tag-with-digest-file", "", "write repository:tag@digest of each destination to this `file`")
	fs.Var(choiceValue{&r.compression, []string{"gzip", "zstd"}}, "compression", "compression of new layers (default gzip)")
	fs.IntVar(&r.level, "compression-level", -1, "`level` of the compression; -1: the usual one")
	fs.Var(choiceValue{&r.format, []string{"docker", "oci"}}, "image-format", "media types of the image (default: as the base image)")
	group(fs, groupResult, "destination", "tag", "no-push", "tar-path", "oci-layout-path", "digest-file", "iidfile", "metadata-file",
		"image-name-with-digest-file", "image-name-tag-with-digest-file", "compression", "compression-level", "image-format")
	alias(fs, "tar-path", "tarPath")
}

func (b *Build) registerRemote() {
	b.registerPull()
	fs, r := b.set, &b.remote
	fs.BoolVar(&r.insecure, "insecure", false, "push over plain HTTP")
	fs.IntVar(&r.pushRetry, "push-retry", 0, "further `tries` of a push that fails")
	group(fs, groupRemote, "insecure", "push-retry")
}

// registerPull adds what is said of registries that are pulled from.
func (b *Build) registerPull() {
	fs, r := b.set, &b.remote
	fs.BoolVar(&r.insecurePull, "insecure-pull", false, "pull over plain HTTP")
	fs.Var(listValue{&r.insecureHosts}, "insecure-registry", "plain HTTP for this registry `host`[:port]; may be repeated")
	fs.BoolVar(&r.skipTLS, "skip-tls-verify", false, "do not verify certificates of registries")
	fs.Var(listValue{&r.skipTLSHosts}, "skip-tls-verify-registry", "do not verify the certificate of this registry `host`[:port]; may be repeated")
	fs.Var(pairsValue{&r.certificates}, "registry-certificate", "trust the CA certificates in a PEM file for one registry; `host=file`, may be repeated")
	fs.Var(listValue{&r.mirrors}, "registry-mirror", "pull images of Docker Hub from `host`[/prefix] first; may be repeated (also: KANIKO_REGISTRY_MIRROR)")
	fs.Var(listValue{&r.maps}, "registry-map", "pull images of one registry from another first: `host=host`[/prefix][;...], may be repeated (also: KANIKO_REGISTRY_MAP)")
	fs.BoolVar(&r.skipTLSPull, "skip-tls-verify-pull", false, "do not verify certificates of registries that are pulled from")
	fs.BoolVar(&r.skipFallback, "skip-default-registry-fallback", false, "where --registry-map or --registry-mirror names mirrors, never ask the registry itself")
	fs.IntVar(&r.pullRetry, "image-download-retry", 0, "further `tries` of a pull that fails")
	fs.IntVar(&r.extractRetry, "image-fs-extract-retry", 0, "the same as --image-download-retry `tries`; the larger counts")
	group(fs, groupRemote, "insecure-pull", "insecure-registry", "skip-tls-verify", "skip-tls-verify-registry",
		"registry-certificate", "registry-mirror", "registry-map", "image-download-retry",
		"skip-tls-verify-pull", "skip-default-registry-fallback", "image-fs-extract-retry")
}

func (b *Build) registerRun() {
	fs, r := b.set, &b.run
	fs.Var(listValue{&r.hosts}, "add-host", "a line of /etc/hosts for RUN: `name:address`, may be repeated; the address host-gateway is this host, whose ports --allow-net 127.0.0.1:PORT opens")
	fs.StringVar(&r.shmSize, "shm-size", "", "`size` of /dev/shm for RUN, such as 128m (default 64m)")
	group(fs, groupRun, "add-host", "shm-size")
}

// alias adds a hidden second name of a flag.
func alias(fs *pflag.FlagSet, name, second string) {
	f := fs.VarPF(fs.Lookup(name).Value, second, "", "the same as --"+name)
	f.Hidden = true
	f.NoOptDefVal = fs.Lookup(name).NoOptDefVal
}

// group files flags under a heading of the help.
func group(fs *pflag.FlagSet, heading string, names ...string) {
	for _, name := range names {
		f := fs.Lookup(name)
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[groupKey] = []string{heading}
	}
}

// Usages is the help of the flags of fs, in groups; flags that are not from
// this package stand in the last.
func Usages(fs *pflag.FlagSet) string {
	var out strings.Builder
	for _, heading := range []string{groupSource, groupResult, groupRemote, groupRun, groupNet, groupLimits, groupLog, groupOther} {
		part := pflag.NewFlagSet("", pflag.ContinueOnError)
		part.SortFlags = false
		fs.VisitAll(func(f *pflag.Flag) {
			in := groupOther
			if g := f.Annotations[groupKey]; len(g) == 1 {
				in = g[0]
			}
			if in == heading && !f.Hidden {
				part.AddFlag(f)
			}
		})
		if part.HasFlags() {
			out.WriteString("\n" + heading + ":\n" + part.FlagUsagesWrapped(helpColumns))
		}
	}
	return out.String()
}
