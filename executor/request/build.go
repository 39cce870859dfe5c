package request

import "time"

// Version is the version of everything in this package. The two sides refuse
// to talk when it differs.
const Version = 4

// GuestPath is an absolute path as seen inside the sandbox.
type GuestPath string

// Build is what the user asked for, as data. The launcher writes it; the
// executor obeys it. In-pod mode makes one from Kaniko's arguments.
type Build struct {
	Version int  `json:"version"`
	Role    Role `json:"role,omitempty"`
	// Store is the directory with what earlier roles left, read-only, in OCI
	// layout form, with the contexts that fetch handed out in contexts; empty: no
	// earlier role.
	Store GuestPath `json:"store,omitempty"`

	// Context is the directory with the build context, read-only. It is empty
	// where Source says that the context has to be fetched.
	Context GuestPath `json:"context"`
	// Source is the build context where it is no directory of the caller's.
	Source Source `json:"source,omitzero"`
	// Contexts are the named contexts of --build-context, in order; of several
	// with one name the last wins.
	Contexts []NamedContext `json:"contexts,omitempty"`
	// Dockerfile is the file to build; DockerfileName is what the user called
	// it, for messages. A relative one lies in the context that Source says; an
	// empty one is Dockerfile there, or Source itself if that is a text.
	Dockerfile     GuestPath `json:"dockerfile,omitempty"`
	DockerfileName string    `json:"dockerfileName"`
	// DockerfileURL is where the Dockerfile has to be downloaded from; then
	// Dockerfile is empty.
	DockerfileURL string `json:"dockerfileURL,omitempty"`
	// Ignore is the ignore file that applies, or empty: <Dockerfile>.dockerignore
	// wins over .dockerignore in the context's root.
	Ignore GuestPath `json:"ignore,omitempty"`

	Target string     `json:"target,omitempty"` // name of a stage; empty: the last one
	Args   []KeyValue `json:"args,omitempty"`   // --build-arg, in order, the last wins
	Labels []KeyValue `json:"labels,omitempty"` // --label, in order, the last wins
	// Platforms are the target platforms, os/arch[/variant], without repetition;
	// none: the host's. Of several each gets an image, and the result is an
	// image index.
	Platforms []string `json:"platforms,omitempty"`
	// Index asks for an image index; it is set where there are several platforms.
	Index bool `json:"index,omitempty"`
	// Annotations are those of --annotation, in order; the last wins.
	Annotations []Annotation `json:"annotations,omitempty"`
	// Call asks for what is known about the Dockerfile instead of an image.
	Call Call `json:"call,omitempty"`
	// CallJSON asks for the answer to Call as JSON.
	CallJSON bool `json:"callJSON,omitempty"`
	// NoCache and NoCacheFilter name what must not come from the layer cache:
	// all, or the stages named.
	NoCache       bool     `json:"noCache,omitempty"`
	NoCacheFilter []string `json:"noCacheFilter,omitempty"`
	// Allow are the entitlements that the user granted: network.host.
	Allow []string `json:"allow,omitempty"`
	// Secrets and Agents are the ids that RUN --mount=type=secret and type=ssh
	// may name. Their contents are asked for when a step needs them.
	Secrets []string `json:"secrets,omitempty"`
	Agents  []string `json:"agents,omitempty"`
	// Layers are the layers whose images the launcher has, by LayerKey: fetch need
	// not pull them for the sake of their files.
	Layers []string `json:"layers,omitempty"`
	// StepCache says that there is a layer cache: what steps have made is asked for,
	// and handed out.
	StepCache bool `json:"stepCache,omitempty"`
	// CacheFrom are places that may have results of steps, in the order in which they
	// are asked, after the launcher; CacheTo get them.
	CacheFrom []CachePlace  `json:"cacheFrom,omitempty"`
	CacheTo   []CacheTarget `json:"cacheTo,omitempty"`
	// CacheTTL is the age from which a result is not used any more; 0: there is none.
	CacheTTL time.Duration `json:"cacheTTL,omitempty"`
	// Caches is the directory with the cache mounts of earlier builds, read-only
	// in launcher mode; empty: each build starts with empty ones and keeps none.
	Caches GuestPath `json:"caches,omitempty"`
	// CacheSize bounds all of them together, in bytes.
	CacheSize int64 `json:"cacheSize,omitempty"`

	// Run holds what every RUN step sees beside its Dockerfile.
	Run Run `json:"run"`
	// Limits bound the build.
	Limits Limits `json:"limits,omitzero"`

	Destinations []string    `json:"destinations,omitempty"` // image references, as given
	NoPush       bool        `json:"noPush,omitempty"`
	Tar          bool        `json:"tar,omitempty"`    // hand out a docker-save tar
	Layout       bool        `json:"layout,omitempty"` // hand out an OCI image layout
	Format       string      `json:"format,omitempty"` // docker, oci; empty: as the base
	Compression  Compression `json:"compression"`
	// SkipImmutable counts a push of a tag that is there already and that its
	// registry keeps from being changed as done.
	SkipImmutable bool `json:"skipImmutable,omitempty"`
	// SkipPushCheck leaves out the check of push permission before the build.
	SkipPushCheck bool `json:"skipPushCheck,omitempty"`

	Registry Registry `json:"registry"`
	Gateway  Gateway  `json:"gateway,omitzero"`

	// Workspace is the directory for everything that the build makes; it is
	// empty at start and large.
	Workspace GuestPath `json:"workspace"`
	// Created is the image's creation time unless SOURCE_DATE_EPOCH says
	// otherwise; zero: the time of the build.
	Created time.Time `json:"created,omitzero"`
	// RewriteTimestamp brings the times of files in new layers down to the
	// image's creation time. Where that is the build's it changes nothing.
	RewriteTimestamp bool `json:"rewriteTimestamp,omitempty"`
}

// Source is a tree of files that is fetched or unpacked inside: at most one of
// Tar and URL is set.
type Source struct {
	// Tar is a tar archive, compressed or not, that the caller laid out.
	Tar GuestPath `json:"tar,omitempty"`
	// URL is a git repository's or, with http:// or https://, that of an archive
	// or of a single Dockerfile, in BuildKit's forms. With Git it is the plain
	// URL of a repository.
	URL string `json:"url,omitempty"`
	// Git is what is wanted of the repository, where URL does not say it.
	Git *Git `json:"git,omitempty"`
	// Dir is the directory within, relative; empty: the root.
	Dir string `json:"dir,omitempty"`
	// Text: what is no archive is the Dockerfile, and the context is empty.
	Text bool `json:"text,omitempty"`
}

// Git is what Kaniko's flags say about a repository.
type Git struct {
	Ref        string `json:"ref,omitempty"` // branch, tag, refs/... or commit; empty: HEAD
	Submodules bool   `json:"submodules,omitempty"`
	KeepGitDir bool   `json:"keepGitDir,omitempty"`
}

// NamedContext is one --build-context: exactly one of Dir, Image, Layout and
// Source is set.
type NamedContext struct {
	Name string `json:"name"`
	// Dir is a directory of the caller's, read-only; it has an ignore file of
	// its own, .dockerignore in its root.
	Dir GuestPath `json:"dir,omitempty"`
	// Image is the reference of docker-image://.
	Image string `json:"image,omitempty"`
	// Layout is the directory of oci-layout://, read-only; Ref is the tag or
	// digest in it, or empty.
	Layout GuestPath `json:"layout,omitempty"`
	Ref    string    `json:"ref,omitempty"`
	Source Source    `json:"source,omitzero"`
}

// AnnotationLevel is what an annotation is attached to.
type AnnotationLevel string

const (
	OnManifest           AnnotationLevel = "manifest"
	OnManifestDescriptor AnnotationLevel = "manifest-descriptor"
	OnIndex              AnnotationLevel = "index"
	OnIndexDescriptor    AnnotationLevel = "index-descriptor"
)

// Annotation is one --annotation.
type Annotation struct {
	Level AnnotationLevel `json:"level"`
	// Platform bounds an annotation of a manifest or of its descriptor to one
	// platform; empty: all.
	Platform string `json:"platform,omitempty"`
	KeyValue
}

// Call is what is asked for about a Dockerfile; empty: it is built.
type Call string

const (
	CallCheck   Call = "check"   // the build checks
	CallOutline Call = "outline" // arguments, secrets and agents of the target
	CallTargets Call = "targets" // the stages
	// CallWarm asks for no answer, but that the layers of base images are there.
	CallWarm Call = "warm"
)

// KeyValue is a name with a value.
type KeyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Run is what every RUN step sees beside its Dockerfile.
type Run struct {
	Hostname string     `json:"hostname,omitempty"` // empty: buildkitsandbox, as BuildKit
	Hosts    []KeyValue `json:"hosts,omitempty"`    // further lines of /etc/hosts: name -> address
	// Network is that of a RUN which names none: none, host, or empty for the
	// default.
	Network string   `json:"network,omitempty"`
	ShmSize int64    `json:"shmSize,omitempty"` // bytes; 0: 64 MiB
	DNS     []string `json:"dns,omitempty"`     // lines of /etc/resolv.conf
}

// Compression is how new layers are compressed.
type Compression struct {
	Algorithm string `json:"algorithm,omitempty"` // gzip (default) or zstd
	Level     int    `json:"level,omitempty"`     // 0 or -1: the library's default
}

// Registry is how registries are reached. Hosts are host[:port], lower case;
// Docker Hub is index.docker.io.
type Registry struct {
	Insecure      bool     `json:"insecure,omitempty"`      // push over plain HTTP
	InsecurePull  bool     `json:"insecurePull,omitempty"`  // pull over plain HTTP
	InsecureHosts []string `json:"insecureHosts,omitempty"` // plain HTTP for these, both ways
	SkipTLS       bool     `json:"skipTLS,omitempty"`       // push without verifying certificates
	SkipTLSPull   bool     `json:"skipTLSPull,omitempty"`   // pull without verifying certificates
	SkipTLSHosts  []string `json:"skipTLSHosts,omitempty"`
	// Certificates are further CA certificates in PEM, trusted for that host only.
	Certificates map[string][]byte `json:"certificates,omitempty"`
	// Maps are mirrors by original host, tried in order before the original.
	Maps []Mirror `json:"maps,omitempty"`
	// SkipFallback: never ask the original registry of a mapped host.
	SkipFallback bool `json:"skipFallback,omitempty"`
	PushRetry    int  `json:"pushRetry,omitempty"` // further tries after the first
	PullRetry    int  `json:"pullRetry,omitempty"`
}

// Mirror says that images of Host may be pulled from Location, a registry host
// with an optional repository prefix.
type Mirror struct {
	Host     string `json:"host"`
	Location string `json:"location"`
}
