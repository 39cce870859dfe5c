package request

import "time"

// EventKind says what an Event tells.
type EventKind string

const (
	EventPlan     EventKind = "plan"     // there are about Total steps, those before it included
	EventStart    EventKind = "start"    // step Step, called Name, begins
	EventLog      EventKind = "log"      // step Step wrote Data to Stream
	EventDone     EventKind = "done"     // step Step ended; Error if it failed; Skipped work is not announced
	EventProgress EventKind = "progress" // step Step has moved Bytes of Total (Total 0: unknown)
	EventWarning  EventKind = "warning"  // Text, with Line of the Dockerfile if known
	EventInfo     EventKind = "info"     // Text
	EventDebug    EventKind = "debug"    // Text
	EventSpan     EventKind = "span"     // Name, no step of its own, began at Time and took Total nanoseconds
	EventPhase    EventKind = "phase"    // the same, of a role as a whole; the launcher measures it and takes it from nobody
)

// Event is one thing that happened. Steps are numbered from 1 in the order of
// their start; pulls, pushes and exports are steps too.
type Event struct {
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"kind"`
	Step   int       `json:"step,omitempty"`
	Name   string    `json:"name,omitempty"`
	Stream int       `json:"stream,omitempty"` // 1 standard output, 2 standard error
	Data   []byte    `json:"data,omitempty"`
	Bytes  int64     `json:"bytes,omitempty"`
	Total  int64     `json:"total,omitempty"`
	Text   string    `json:"text,omitempty"`
	Line   int       `json:"line,omitempty"`
	Error  string    `json:"error,omitempty"`
	Cached bool      `json:"cached,omitempty"` // with done: the layer cache had the result
	// Role is whose event it is, which the launcher knows; empty: its own, or that
	// of a pod.
	Role Role `json:"-"`
}

// Sink takes events. It is safe for concurrent use and never blocks for long.
type Sink interface {
	Emit(Event)
}

// Scope is what is wanted of the launcher.
type Scope string

const (
	Pull   Scope = "pull"   // the credential of a registry, for reading
	Push   Scope = "push"   // the same, for writing
	Secret Scope = "secret" // the value of one of Build.Secrets
	Agent  Scope = "agent"  // the reply of one of Build.Agents to a message
	Step   Scope = "step"   // a CachedStep of the layer cache, by its key
	Digest Scope = "digest" // that of what a copy takes of a local context
)

// Ask asks the launcher for something that only it has. ID pairs it with its
// Answer.
type Ask struct {
	ID         uint64 `json:"id"`
	Host       string `json:"host,omitempty"`       // pull, push: registry host[:port]
	Repository string `json:"repository,omitempty"` // pull, push: without the host
	Scope      Scope  `json:"scope"`
	Name       string `json:"name,omitempty"` // secret, agent: the id; step: the key; digest: where the context is inside
	// Data is a message for an SSH agent, without its length, or Contents as JSON.
	Data []byte `json:"data,omitempty"`
}

// MaxSecret is the largest secret, in bytes, as in BuildKit. MaxAgentsAtOnce is
// how many messages to agents may wait for their answers.
const (
	MaxSecret       = 500 << 10
	MaxAgentsAtOnce = 8
)

// Answer is the launcher's reply; of a registry's credential all fields empty:
// anonymous.
type Answer struct {
	ID            uint64 `json:"id"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identityToken,omitempty"`
	RegistryToken string `json:"registryToken,omitempty"`
	// Data is the secret's value, the agent's reply without its length, a CachedStep
	// as JSON, or a SHA-256; empty: the launcher does not know it.
	Data  []byte `json:"data,omitempty"`
	Error string `json:"error,omitempty"`
}

// OutputKind is a thing that the executor hands out.
type OutputKind string

const (
	OutputTar   OutputKind = "tar"   // a docker-save tar, one stream
	OutputBlob  OutputKind = "blob"  // blobs/sha256/<hex> of an OCI layout; Digest is set
	OutputIndex OutputKind = "index" // index.json of an OCI layout
	// OutputCache is a layer of a cache mount, whose key is Name; Digest and Size
	// are set, and Base is the state that the layer lies on, see cachedir.State;
	// empty: the layer is all of the cache. Without digest and bytes it says that
	// the state Base was used and not changed.
	OutputCache OutputKind = "cache"
	// OutputStored is a blob for the store of this build. Its digest may be known
	// at its end only.
	OutputStored OutputKind = "stored"
	// OutputKeep says that the stored blob Digest is part of an OCI layout. No
	// stream follows. A layout is that of the image, or, where Name says it, the place of
	// that number in Build.CacheTo. So it is with OutputBlob and OutputIndex.
	OutputKeep OutputKind = "keep"
	// OutputAhead says that the stored blob Digest is a layer of the image, if there will
	// be one: push may upload it. No stream follows.
	OutputAhead OutputKind = "ahead"
	// OutputTags and OutputSources are index.json and sources.json of the store,
	// OutputContext the fetched context Name, see Fetched. Fetch hands them out.
	OutputTags    OutputKind = "tags"
	OutputSources OutputKind = "sources"
	OutputContext OutputKind = "context"
	// OutputLayer is the image of the layer that Name is the LayerKey of, by fetch.
	// The image's first block, of LayerBlock bytes, comes last.
	OutputLayer OutputKind = "layer"
	// OutputStep is a CachedStep, as JSON, under the key that is Name, by build. What
	// it names has come before.
	OutputStep OutputKind = "step"
)

// MaxStreams is how many outputs may be open at a time.
const MaxStreams = 16

// Output begins a stream of chunks.
type Output struct {
	Kind   OutputKind `json:"kind"`
	Stream uint32     `json:"stream,omitempty"` // its number, of none that is open
	Digest string     `json:"digest,omitempty"` // sha256:<hex>
	Size   int64      `json:"size,omitempty"`   // bytes to come; 0: unknown (tar)
	Name   string     `json:"name,omitempty"`   // cache
	Base   string     `json:"base,omitempty"`   // cache
}

// OutputEnd ends a stream.
type OutputEnd struct {
	Stream uint32 `json:"stream"`
	Digest string `json:"digest,omitempty"` // of a stored blob, where Output did not say it
	// Dropped: what came is to be forgotten.
	Dropped bool `json:"dropped,omitempty"`
}

// Failure is why a build failed, in a form that can be shown and tested.
type Failure struct {
	Class   Class  `json:"class"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	File    string `json:"file,omitempty"` // the Dockerfile as the user named it
	Line    int    `json:"line,omitempty"` // first line of the instruction, from 1
	EndLine int    `json:"endLine,omitempty"`
	// Excerpt is some lines of the Dockerfile around Line, the faulty ones
	// marked with >>>.
	Excerpt string `json:"excerpt,omitempty"`
	// Log is the last output of the failed step.
	Log []byte `json:"log,omitempty"`
	// ExitCode is the exit code of the failed RUN, 128+n for signal n; 0 if
	// no RUN failed.
	ExitCode int `json:"exitCode,omitempty"`
}

// Class is the kind of a failure; the launcher's exit code follows from it.
type Class string

const (
	ClassParse       Class = "parse"       // the Dockerfile is wrong as written
	ClassUnsupported Class = "unsupported" // BuildKit has it, we don't yet
	ClassResolve     Class = "resolve"     // a base image, stage or target cannot be found
	ClassCopy        Class = "copy"        // COPY, ADD or WORKDIR cannot be carried out
	ClassRun         Class = "run"         // RUN failed or could not start
	ClassLint        Class = "lint"        // check=error=true
	ClassEntitlement Class = "entitlement" // a privilege that was not granted
	ClassPush        Class = "push"        // a destination refused
	ClassIsolation   Class = "isolation"   // a wall is not in force
	ClassResource    Class = "resource"    // disk full, limits
	ClassTimeout     Class = "timeout"     // a limit of time was reached
	ClassCanceled    Class = "canceled"    // the launcher asked to stop
	ClassInternal    Class = "internal"    // a fault of ours
)

// Result is the last frame: how the build ended.
type Result struct {
	Version int      `json:"version"`
	Failure *Failure `json:"failure,omitempty"`
	Digest  string   `json:"digest,omitempty"` // of the image manifest or index, sha256:<hex>
	Size    int64    `json:"size,omitempty"`   // of that, bytes
	Media   string   `json:"mediaType,omitempty"`
	Config  string   `json:"config,omitempty"` // digest of the image's config; empty for an index
	// Pushed names what was pushed, registry/repository:tag, in order.
	Pushed []string `json:"pushed,omitempty"`
	// Names are all destinations in full form, pushed or not.
	Names []string `json:"names,omitempty"`
	// Posture is what was measured of the walls, one entry a role. Only the
	// launcher says it, and the executor of a pod.
	Posture []RolePosture `json:"posture,omitempty"`
	// Called is the answer to Build.Call.
	Called *Called `json:"called,omitempty"`
	// Images are the manifests that were built, one a platform, in order.
	Images []Image `json:"images,omitempty"`
	// Fetched are the contexts that fetch handed out.
	Fetched []Fetched `json:"fetched,omitempty"`
	// Layers are those whose images build is to have, by LayerKey.
	Layers []string `json:"layers,omitempty"`
	// Cached is how many steps came from the layer cache.
	Cached int `json:"cached,omitempty"`
	// Steps are what the layer cache has of the steps of all plans, in order.
	Steps []KnownStep `json:"steps,omitempty"`
	// Exported are indexes of results of steps in the store, one for each of CacheTo.
	Exported []Descriptor `json:"exported,omitempty"`
	// Materials are what the build was made from.
	Materials []Material `json:"materials,omitempty"`
}

// Called is what is known about a Dockerfile, in one of two forms.
type Called struct {
	Text []byte `json:"text,omitempty"` // for people, with a newline at the end
	JSON []byte `json:"json,omitempty"` // as docker buildx prints it
	// Failed: the command has to end with exit code 1.
	Failed bool `json:"failed,omitempty"`
}
