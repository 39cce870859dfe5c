package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Config is one run of the executor. Paths are the host's.
type Config struct {
	// Request is what to build. Its guest paths are filled in here; Tar and
	// Layout follow from Outputs.
	Request request.Build

	// Context is the directory with the build context; "" where Request.Source
	// says what it is.
	Context string
	// Archive is the file of Request.Source.Tar. Stdin is read to its end
	// instead, where it is not nil.
	Archive string
	Stdin   io.Reader
	// Contexts are the directories of Request.Contexts, in the same order; "" for
	// one that has none.
	Contexts []string
	// CacheFrom and CacheTo are the directories of those of the Request's that are OCI
	// layouts, in the same order. They need not be there.
	CacheFrom, CacheTo []string
	Dockerfile         string // file, or ""; below Context it may not lead out of it
	// DockerfileData is the Dockerfile's content where there is no such file
	// (it came on standard input); it wins over Dockerfile.
	DockerfileData []byte
	Ignore         string // ignore file, or ""

	// Version is the launcher's own; an executor of another is refused.
	Version  string
	Executor string       // the executor's program file, static
	Runsc    *runsc.Runsc // see runsc.Find

	// WorkDir is the directory in which this run makes its own; it needs room
	// for everything that the build unpacks and makes.
	WorkDir string
	// Quota bounds what the run takes of WorkDir's disk, in bytes: the workspaces
	// of all sandboxes and what the launcher keeps; 0: what is free, less a margin.
	Quota int64
	// Limits hold all sandboxes of the run together.
	Limits Limits
	// DirectFS trades a wall for speed, see runsc.Settings.
	DirectFS bool
	// NoSUID: set-user-id programs in RUN steps do not elevate.
	NoSUID bool
	// DebugDir gets gVisor's own logs; "": none are written.
	DebugDir string

	Network Network

	// CACertificates is a PEM file of the host; "": the distribution's.
	CACertificates string
	// ResolvConf is the file with the name servers; "": /etc/resolv.conf.
	ResolvConf string

	Outputs Outputs
	Caches  Caches
	// Answer gives what only the launcher has: credentials, secrets, replies of
	// agents; nil: registries are asked anonymously. It is called
	// from several goroutines.
	Answer func(ctx context.Context, ask request.Ask) request.Answer
	Sink   request.Sink // nil: events are dropped
	// Attest is asked between build and push what is to be published about the
	// image; nil: nothing.
	Attest func(Built) (Attestation, error)

	// Set by Run.
	hold   *hold
	disk   *disk
	digest func() (string, error) // of the executor on the host
	layers []string               // files of images that build mounts
}

// Outputs are the files that the executor's streams go to. They appear when
// the build has succeeded, all of them, or not at all.
type Outputs struct {
	LayoutDir string // OCI image layout, or ""
	TarPath   string // docker-save tar, or ""
	// Limit bounds all outputs together, in bytes; 0: what is free in each
	// place, less a margin.
	Limit int64
}

// prepared checks c and returns it with absolute paths.
func (c Config) prepared() (Config, error) {
	switch {
	case c.Runsc == nil:
		return c, &WallError{Wall: "gVisor", Msg: "no runsc was given", Hint: doctorHint}
	case c.WorkDir == "":
		return c, errors.New("sandbox: no work directory given")
	case c.Executor == "":
		return c, errors.New("sandbox: no executor given")
	}
	if err := c.checkContext(); err != nil {
		return c, err
	}
	c.Contexts = slices.Clone(c.Contexts)
	paths := []*string{&c.Context, &c.Archive, &c.Dockerfile, &c.Ignore, &c.Executor, &c.WorkDir, &c.DebugDir,
		&c.CACertificates, &c.ResolvConf, &c.Caches.Dir, &c.Outputs.LayoutDir, &c.Outputs.TarPath}
	c.CacheFrom, c.CacheTo = slices.Clone(c.CacheFrom), slices.Clone(c.CacheTo)
	for _, list := range [][]string{c.Contexts, c.CacheFrom, c.CacheTo} {
		for i := range list {
			paths = append(paths, &list[i])
		}
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return c, fmt.Errorf("sandbox: %w", err)
		}
		*p = abs
	}
	c.Request.Version = request.Version
	c.Request.Workspace = guestWork
	c.moveContexts()
	c.moveResults()
	c.Request.Tar, c.Request.Layout = c.Outputs.TarPath != "", c.Outputs.LayoutDir != ""
	if c.Sink == nil {
		c.Sink = noSink{}
	}
	return c, nil
}

type noSink struct{}

func (noSink) Emit(request.Event) {}
