package provenance

import (
	"encoding/json"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Types, as they are written into statements and manifests.
const (
	// StatementType is in-toto's (in-toto/attestation, spec/v1/statement.md).
	StatementType = "https://in-toto.io/Statement/v1"
	// PredicateType is SLSA's (slsa.dev/spec/v1.1/provenance).
	PredicateType = "https://slsa.dev/provenance/v1"
	// BuildType is the place of buildtype.md.
	BuildType = "https://github.com/kbuild-sandbox/kbuild-sandbox/blob/main/sandbox/provenance/buildtype.md"
	// UnnamedBuilder is who built where nobody says it: see there.
	UnnamedBuilder = BuildType + "#unnamed-builder"
)

// MaxStatement bounds a statement as JSON, in bytes.
const MaxStatement = 4 << 20

// Statement is an in-toto statement about one image.
type Statement struct {
	Type          string    `json:"_type"`
	PredicateType string    `json:"predicateType"`
	Subject       []Subject `json:"subject"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is what a statement is about.
type Subject struct {
	Name   string  `json:"name"` // package URL, or _
	Digest Digests `json:"digest"`
}

// Digests are digests in hexadecimal by algorithm.
type Digests map[string]string

// Predicate is SLSA's provenance.
type Predicate struct {
	BuildDefinition Definition `json:"buildDefinition"`
	RunDetails      Run        `json:"runDetails"`
}

// Definition says what was built, and from what.
type Definition struct {
	BuildType            string       `json:"buildType"`
	ExternalParameters   External     `json:"externalParameters"`
	InternalParameters   Internal     `json:"internalParameters"`
	ResolvedDependencies []Dependency `json:"resolvedDependencies"`
}

// External is what the user asked for.
type External struct {
	ConfigSource ConfigSource `json:"configSource"`
	Request      Request      `json:"request"`
}

// ConfigSource is where the Dockerfile came from.
type ConfigSource struct {
	URI    string  `json:"uri,omitempty"` // of a context that is not local
	Digest Digests `json:"digest,omitempty"`
	Path   string  `json:"path,omitempty"` // of the Dockerfile, as the user named it
}

// Request is the command line in BuildKit's words: args has build-arg:NAME,
// label:NAME, target and others.
type Request struct {
	Frontend string            `json:"frontend"`
	Args     map[string]string `json:"args,omitempty"`
	Secrets  []Named           `json:"secrets,omitempty"`
	SSH      []Named           `json:"ssh,omitempty"`
	Locals   []Local           `json:"locals,omitempty"`
	// Allow are the entitlements that were granted.
	Allow []string `json:"allow,omitempty"`
	// Registry is how base images were looked for, where that is not as usual.
	Registry *Registry `json:"registry,omitempty"`
}

// Named is a secret or an SSH agent that the user lent; never its value.
type Named struct {
	ID string `json:"id"`
}

// Local is a tree of files of the user's machine.
type Local struct {
	Name string `json:"name"`
}

// Registry says which registries others stood in for, and which could not be
// told from impostors.
type Registry struct {
	Mirrors  []request.Mirror `json:"mirrors,omitempty"`
	Insecure []string         `json:"insecure,omitempty"` // hosts, or * for all
}

// Internal is what the builder added of its own.
type Internal struct {
	BuilderPlatform string `json:"builderPlatform"`
	TargetPlatform  string `json:"targetPlatform"`
	// Posture is the digest of the postures of all roles, as JSON: what the
	// walls were. Postures are these themselves.
	Posture  Digests               `json:"posture,omitempty"`
	Postures []request.RolePosture `json:"postures,omitempty"`
	// Egress says where a role might connect to.
	Egress map[request.Role]Egress `json:"egress,omitempty"`
}

// Egress is a policy.Egress in words.
type Egress struct {
	Mode  string   `json:"mode"`
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

// Dependency is something that the image was made from.
type Dependency struct {
	URI         string  `json:"uri"`
	Digest      Digests `json:"digest,omitempty"`
	Annotations Claim   `json:"annotations"`
}

// Claim says how far a dependency is known.
type Claim struct {
	// ReportedBy is the role that told of it. Build runs tenant code, fetch does
	// not.
	ReportedBy request.Role `json:"kbuild_reportedBy"`
	// Received: bytes of that digest went through the launcher, which has hashed
	// them.
	Received bool `json:"kbuild_received,omitempty"`
}

// Run is the run of the build.
type Run struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder is who built.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"` // by part
}

// Metadata is about this one build.
type Metadata struct {
	InvocationID string       `json:"invocationId"`
	StartedOn    time.Time    `json:"startedOn"`
	FinishedOn   time.Time    `json:"finishedOn"`
	Completeness Completeness `json:"kbuild_completeness"`
	// Hermetic: no step, and nothing else in the build's sandbox, reached the
	// network or tried to.
	Hermetic bool `json:"kbuild_hermetic"`
	// Caches: kept cache mounts were there for steps to read, or steps were not done
	// but came from the layer cache.
	Caches  bool                     `json:"kbuild_caches"`
	Network map[request.Role]Network `json:"kbuild_network"`
}

// Completeness says what a statement does not leave out.
type Completeness struct {
	Request              bool `json:"request"`
	ResolvedDependencies bool `json:"resolvedDependencies"`
	Network              bool `json:"network"`
}

// Network is what the gateway of one role counted.
type Network struct {
	Flows        uint64 `json:"flows"`
	Denied       uint64 `json:"denied"`       // of them
	Shed         uint64 `json:"shed"`         // packets over a limit
	Destinations int    `json:"destinations"` // addresses with ports
	Recorded     uint64 `json:"recorded"`     // flows whose record the launcher has taken
}

// JSON is the statement as it is stored and signed.
func (s Statement) JSON() ([]byte, error) { return json.Marshal(s) }

// About returns the statement with a further subject, which has all names of
// the first one.
func (s Statement) About(digest string) Statement {
	known := map[string]bool{}
	var more []Subject
	for _, sub := range s.Subject {
		if sub.Digest[digestAlgorithm] == hexOf(digest) {
			return s
		}
		if name := withoutPlatform(sub.Name); !known[name] {
			known[name] = true
			more = append(more, Subject{name, digestSet(digest)})
		}
	}
	s.Subject = append(append([]Subject{}, s.Subject...), more...)
	return s
}
