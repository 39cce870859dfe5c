package request

import "time"

// Version is the version of everything in this package. The two sides refuse
// to talk when it differs.
const Version = 1

// GuestPath is an absolute path as seen inside the sandbox.
type GuestPath string

// Build is what the user asked for, as data. The launcher writes it; the
// executor obeys it. In-pod mode makes one from Kaniko's arguments.
type Build struct {
	Version int `json:"version"`

	// Context is the directory with the build context, read-only.
	Context GuestPath `json:"context"`
	// Dockerfile is the file to build; DockerfileName is what the user called
	// it, for messages.
	Dockerfile     GuestPath `json:"dockerfile"`
	DockerfileName string    `json:"dockerfileName"`
	// Ignore is the ignore file that applies, or empty: <Dockerfile>.dockerignore
	// wins over .dockerignore in the context's root.
	Ignore GuestPath `json:"ignore,omitempty"`

	Target string     `json:"target,omitempty"` // name of a stage; empty: the last one
	Args   []KeyValue `json:"args,omitempty"`   // --build-arg, in order, the last wins
	Labels []KeyValue `json:"labels,omitempty"` // --label, in order, the last wins
	// Platform is the target platform, os/arch[/variant]; empty: the host's.
	Platform string `json:"platform,omitempty"`

	// Run holds what every RUN step sees beside its Dockerfile.
	Run Run `json:"run"`

	Destinations []string    `json:"destinations,omitempty"` // image references, as given
	NoPush       bool        `json:"noPush,omitempty"`
	Tar          bool        `json:"tar,omitempty"`    // hand out a docker-save tar
	Layout       bool        `json:"layout,omitempty"` // hand out an OCI image layout
	Format       string      `json:"format,omitempty"` // docker, oci; empty: as the base
	Compression  Compression `json:"compression"`
	// SkipPushCheck leaves out the check of push permission before the build.
	SkipPushCheck bool `json:"skipPushCheck,omitempty"`

	Registry Registry `json:"registry"`

	// Workspace is the directory for everything that the build makes; it is
	// empty at start and large.
	Workspace GuestPath `json:"workspace"`
	// Created is the image's creation time; zero: the time of the build.
	Created time.Time `json:"created,omitzero"`
}

// KeyValue is a name with a value.
type KeyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Run is what every RUN step sees beside its Dockerfile.
type Run struct {
	Hostname string     `json:"hostname,omitempty"` // empty: buildkitsandbox, as BuildKit
	Hosts    []KeyValue `json:"hosts,omitempty"`    // further lines of /etc/hosts: name -> address
	ShmSize  int64      `json:"shmSize,omitempty"`  // bytes; 0: 64 MiB
	DNS      []string   `json:"dns,omitempty"`      // lines of /etc/resolv.conf
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
