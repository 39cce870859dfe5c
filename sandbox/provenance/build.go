package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// Build is what is known about a build when the image is there.
type Build struct {
	Options
	// Request is what the user asked for, with the paths of the user's machine.
	Request request.Build
	// Images are the manifests that were built, as build named them. The launcher
	// must have received all of them.
	Images []request.Image
	// Fetched and Built are what fetch and build say to have taken from outside.
	Fetched, Built []request.Material
	// Received tells whether bytes of that digest went through the launcher.
	Received func(digest string) bool
	// Network has the roles whose traffic was counted.
	Network  map[request.Role]Network
	Postures []request.RolePosture
	// Caches: kept cache mounts were there, which steps could read, or a layer cache
	// had what steps would have read.
	Caches bool
	Egress map[request.Role]policy.Egress
	// Mask takes values of secrets out of a text, where the user wrote one into a
	// build argument; nil: none is known.
	Mask func(string) string

	InvocationID      string
	Started, Finished time.Time
	Platform          string            // of this machine, os/arch
	Versions          map[string]string // by part of the builder
}

// Options are what the user wants of the provenance itself.
type Options struct {
	// Max: values of build arguments and labels, names of secrets and agents, and
	// the postures as they are.
	Max     bool
	Builder string // id; empty: UnnamedBuilder
}

// ErrClaim is wrapped by the errors about a malformed claim of an executor.
var ErrClaim = errors.New("malformed claim")

// Statements returns a statement for each image, in order.
func Statements(b Build) ([]Statement, error) {
	if want := max(1, len(b.Request.Platforms)); len(b.Images) != want {
		return nil, fmt.Errorf("%w: %d images, not %d", ErrClaim, len(b.Images), want)
	}
	deps, err := b.dependencies()
	if err != nil {
		return nil, err
	}
	posture, err := b.posture()
	if err != nil {
		return nil, err
	}
	var out []Statement
	for i, img := range b.Images {
		if err := checkImage(img); err != nil {
			return nil, err
		}
		if len(b.Request.Platforms) > 0 && b.Request.Platforms[i] != img.Platform {
			return nil, fmt.Errorf("%w: an image for %s, not for %s", ErrClaim, img.Platform, b.Request.Platforms[i])
		}
		s := Statement{
			Type: StatementType, PredicateType: PredicateType,
			Subject: b.subjects(img),
			Predicate: Predicate{
				BuildDefinition: Definition{
					BuildType:            BuildType,
					ExternalParameters:   b.external(deps),
					InternalParameters:   b.internal(img.Platform, posture),
					ResolvedDependencies: written(deps),
				},
				RunDetails: b.run(),
			},
		}
		out = append(out, s)
	}
	return out, nil
}

// checkImage refuses what could not be written into an index as it is.
func checkImage(img request.Image) error {
	if !isDigest(img.Digest) || img.Size <= 0 {
		return fmt.Errorf("%w: image %.80q of %d bytes", ErrClaim, img.Digest, img.Size)
	}
	parts := strings.Split(img.Platform, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.Trim(img.Platform, platformLetters) != "" {
		return fmt.Errorf("%w: platform %.80q", ErrClaim, img.Platform)
	}
	switch img.MediaType {
	case mediaManifest, mediaDockerManifest:
		return nil
	}
	return fmt.Errorf("%w: image of type %.80q", ErrClaim, img.MediaType)
}

const platformLetters = "abcdefghijklmnopqrstuvwxyz0123456789_./-"

// unnamed is the destination that a tar has which is given no name, as Kaniko's.
const unnamed = "docker.io/unset-repo/unset-image-name"

// subjects are the image under all its names.
func (b Build) subjects(img request.Image) []Subject {
	var out []Subject
	for _, name := range b.Request.Destinations {
		if name == unnamed {
			continue
		}
		out = append(out, Subject{packageURL("docker", name, img.Platform), digestSet(img.Digest)})
	}
	if len(out) == 0 {
		out = []Subject{{"_", digestSet(img.Digest)}} // in-toto's name for: whatever it is called
	}
	return out
}

func (b Build) internal(platform string, posture Digests) Internal {
	in := Internal{BuilderPlatform: b.Platform, TargetPlatform: platform, Posture: posture}
	if b.Max {
		in.Postures = b.Postures
	}
	for role, e := range b.Egress {
		if in.Egress == nil {
			in.Egress = map[request.Role]Egress{}
		}
		in.Egress[role] = Egress{Mode: e.Mode.String(), Allow: rules(e.Allow), Deny: rules(e.Deny)}
	}
	return in
}

// rules are rules as --allow-net and --deny-net take them.
func rules(list []policy.EgressRule) []string {
	var out []string
	for _, r := range list {
		text := r.Name
		switch {
		case text != "":
		case r.Prefix.IsSingleIP() && r.Port != 0:
			text = r.Prefix.Addr().String()
		default:
			text = r.Prefix.String()
		}
		if r.Port != 0 {
			text = net.JoinHostPort(text, strconv.Itoa(int(r.Port)))
		}
		out = append(out, text)
	}
	return out
}

// posture is the digest of all postures, or nil where none was measured.
func (b Build) posture() (Digests, error) {
	if len(b.Postures) == 0 {
		return nil, nil
	}
	digest, err := request.PostureDigest(b.Postures)
	if err != nil {
		return nil, err
	}
	return digestSet(digest), nil
}

func (b Build) run() Run {
	id := b.Builder
	if id == "" {
		id = UnnamedBuilder
	}
	network := b.Network
	if network == nil {
		network = map[request.Role]Network{}
	}
	hermetic := b.hermetic()
	return Run{
		Builder: Builder{ID: id, Version: b.Versions},
		Metadata: Metadata{
			InvocationID: b.InvocationID,
			StartedOn:    b.Started.UTC(), FinishedOn: b.Finished.UTC(),
			Completeness: Completeness{
				Request: b.Max || !b.leavesOut(),
				// What steps fetched from the network nobody can name, nor where kept cache
				// mounts are from.
				ResolvedDependencies: hermetic && !b.Caches && len(b.locals()) == 0,
				Network:              b.counted(),
			},
			Hermetic: hermetic,
			Caches:   b.Caches,
			Network:  network,
		},
	}
}

// hermetic: the gateway of build saw nothing at all, not even what it denied,
// and build tells of nothing that it fetched.
func (b Build) hermetic() bool {
	n, known := b.Network[request.RoleBuild]
	return known && n.Flows == 0 && n.Shed == 0 && len(b.Built) == 0
}

// counted: each flow of the roles that have ended has a record, and none was
// dropped over a limit.
func (b Build) counted() bool {
	for _, role := range []request.Role{request.RoleFetch, request.RoleBuild} {
		if n, known := b.Network[role]; !known || n.Recorded != n.Flows || n.Shed != 0 {
			return false
		}
	}
	return true
}

const digestAlgorithm = "sha256"

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digestAlgorithm + ":" + hex.EncodeToString(sum[:])
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, digestAlgorithm+":") }

func digestSet(digest string) Digests {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return Digests{algorithm: hex}
}

func isDigest(s string) bool {
	return strings.HasPrefix(s, digestAlgorithm+":") && isHex(hexOf(s), 2*sha256.Size)
}

func isHex(s string, n int) bool { return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" }
