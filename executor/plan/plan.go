package plan

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Plan is what has to be done for one image of one platform. Stages that the
// target does not need are not in it.
type Plan struct {
	// Stages in an order in which each comes after the stages that it needs.
	Stages []*Stage
	// Target is the stage whose result becomes the image; the last of Stages.
	Target *Stage
	// Warnings are remarks of the parser and of the build checks.
	Warnings []Warning
	// Ignored are --build-arg names that nothing consumed.
	Ignored []string
	// Created is the time for the config, history and new directories, from
	// SOURCE_DATE_EPOCH or Options.Created; nil: the time of the build.
	Created *time.Time
}

// StageID names a stage within a plan: its index in the Dockerfile, or, for a
// stage that stands for an image named by COPY --from, a number past those.
type StageID int

// Stage is a base with steps on top.
type Stage struct {
	ID   StageID
	Name string // as in FROM ... AS name, else stage-<index>, or the image's reference; for messages
	Base Base
	// Steps change the filesystem, in order. Metadata instructions are no
	// steps: their effect is in Image.
	Steps []*Step
	// Image is the config of the stage's result: everything but rootfs.diff_ids
	// and the times of layers, which the build fills in. Its History has the
	// entries of the base image first, then one per instruction (those of the
	// stages below included); an entry of an instruction that is not EmptyLayer
	// belongs to the step of the same order.
	Image *Image
	// Platform is the platform of the stage.
	Platform v1.Platform
	// NeedsFiles says that the stage's filesystem is used: by a step of its
	// own, by a COPY --from, or by a stage on top of it that needs files.
	// Where it is false no layer of the base has to be pulled or unpacked.
	NeedsFiles bool
}

// Base is what a stage starts from: scratch if all fields are zero.
type Base struct {
	// Named is the named context whose files are the base, or empty.
	Named string
	// Image is the resolved base image, or nil.
	Image *Resolved
	// Stage is an earlier stage of the plan, or nil.
	Stage *Stage
}

// Resolved is an image that a registry was asked for.
type Resolved struct {
	// Ref is the reference as written, after expansion.
	Ref string
	// Digest is the digest of the manifest of the one platform.
	Digest v1.Hash
	// Config is the image's config file as it came, with unknown fields.
	Config []byte
	// Manifest is the image's manifest as it came.
	Manifest []byte
}

// Step is one instruction that changes a stage's filesystem.
type Step struct {
	Op Op
	// Name is the instruction as shown to people, expanded, with the stage and
	// its place in it: [build 2/5] RUN make.
	Name string
	// Line and EndLine are its lines in the Dockerfile, from 1; for a trigger
	// those of the FROM that fired it.
	Line, EndLine int
	// Trigger is the ONBUILD instruction that this step came from, or empty.
	Trigger string
}

// Op is one of Run, Copy and Workdir.
type Op interface{ op() }

// Sources are the stages that an operation reads from, in its order: they must be
// complete before it can run.
func Sources(op Op) (stages []*Stage) {
	add := func(f From) {
		if f.Stage != nil {
			stages = append(stages, f.Stage)
		}
	}
	switch op := op.(type) {
	case *Copy:
		add(op.From)
	case *Run:
		for _, m := range op.Mounts {
			add(m.From)
		}
	}
	return stages
}

// Run executes a command.
type Run struct {
	Args []string // argv, the shell included
	Env  []string // NAME=value: the image's environment, then arguments in scope
	Cwd  string   // absolute
	User string   // as in USER: name or uid, with :group; empty: root
	// Files are here-documents that the command executes: they are below
	// PipesDir, read-only, for this step alone.
	Files   []File
	Network string // default, none, host
	Mounts  []Mount
}

// Mount is one --mount of a RUN, in BuildKit's terms.
type Mount struct {
	Type     string // bind, cache, tmpfs, secret, ssh
	From     From   // bind, cache: what it shows, or starts from; else FromScratch
	Source   string // bind, cache: absolute path within From
	Target   string // absolute and clean; empty for a secret that is a variable only
	ReadOnly bool   // a bind mount that is not: writes are discarded
	ID       string // cache, secret, ssh: never empty
	Sharing  string // cache: shared, private, locked
	Required bool   // secret, ssh
	Env      string // secret, ssh: the variable to set, or empty
	Size     int64  // tmpfs: bytes, 0: no limit
	// Mode, UID and GID are set for secret and ssh; for cache nil means not
	// given: a new cache directory is root's, 0755.
	Mode     *uint32
	UID, GID *uint32
}

// FromKind says where the sources of a COPY or ADD lie.
type FromKind int

const (
	FromContext FromKind = iota // the build context
	FromStage                   // Stage
	FromScratch                 // an empty tree
	FromNamed                   // the named context Name, a tree of files
)

// From is where sources are read. An image named by --from is a Stage without
// steps.
type From struct {
	Kind  FromKind
	Stage *Stage
	Name  string
}

// Copy copies files into the stage: COPY and ADD.
type Copy struct {
	From From
	// Paths are source patterns as written, expanded; in BuildKit's sense
	// relative to the root of From.
	Paths []string
	// Files are here-documents.
	Files []File
	// Remotes are the URLs of an ADD.
	Remotes []Remote
	// Dest is absolute. A trailing slash or "/." is kept: it says that the
	// destination is a directory.
	Dest string
	// Add: local archives are extracted (as identified by content).
	Add bool
	// Unpack is --unpack of ADD: nil if not given.
	Unpack  *bool
	Chown   string // as written, expanded; empty: see From
	Chmod   string // octal or symbolic; empty: as the source
	Link    bool
	Parents bool
	Exclude []string
}

// File is a here-document.
type File struct {
	Name string // file name without directory
	Data []byte // expanded already
	Mode uint32
}

// Remote is a URL source of ADD.
type Remote struct {
	// After is how many of the copy's Paths come before this source.
	After int
	// Git is set if the source is a git repository; then nothing below is.
	Git      *Repository
	URL      string
	Checksum string // algorithm:hex with sha256, sha384 or sha512, or empty
	// Name is the file's name where the destination is a directory.
	Name string
}

// Repository is what is wanted of a git repository.
type Repository struct {
	URL          string // without fragment and query of BuildKit's own
	Ref          string // branch, tag or commit; empty: the remote's HEAD
	Subdir       string // relative; empty: all
	Commit       string // what the commit's hash has to begin with; empty: not checked
	KeepGitDir   bool
	NoSubmodules bool
	CommitTime   bool // files get the time of the commit instead of now
	// FetchByCommit trusts Commit and does not look at where Ref is now.
	FetchByCommit bool
}

// Workdir creates a directory and its missing parents if it is not there.
type Workdir struct {
	Path string // absolute, clean
	User string // owner of what is created, as in USER
	// Time is the modification time of what is created; nil: now.
	Time *time.Time
}

func (*Run) op()     {}
func (*Copy) op()    {}
func (*Workdir) op() {}

// Warning is a remark about the Dockerfile.
type Warning struct {
	Rule        string // the build check's name, or empty
	Description string // what the check is about, whatever it found
	Text        string
	URL         string
	// Line and EndLine are the lines that it is about, from 1; 0: none.
	Line, EndLine int
}

// Image is an OCI image config as BuildKit writes it: the OCI fields plus
// Docker's Healthcheck, OnBuild, Shell and ArgsEscaped. Its JSON is the
// config blob.
type Image struct {
	Created      *time.Time `json:"created,omitempty"`
	Author       string     `json:"author,omitempty"`
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	OSVersion    string     `json:"os.version,omitempty"`
	OSFeatures   []string   `json:"os.features,omitempty"`
	Variant      string     `json:"variant,omitempty"`
	Config       Config     `json:"config"`
	RootFS       RootFS     `json:"rootfs"`
	History      []History  `json:"history,omitempty"`
}

// RootFS lists the digests of the uncompressed layers.
type RootFS struct {
	Type    string    `json:"type"` // layers
	DiffIDs []v1.Hash `json:"diff_ids"`
}

// History tells where a layer came from.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// Config is the part of the image config that a container runs with.
type Config struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

// Healthcheck is Docker's extension; durations are nanoseconds.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}
