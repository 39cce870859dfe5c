package plan

import (
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// workdir is WORKDIR. Every directory but the root is a step and a layer, even
// if it is there already.
func (m *maker) workdir(d *draft, c command, i *instructions.WorkdirCommand, lint *linter.Linter) error {
	if !d.absolute {
		m.checks.relativeWorkdir(i, lint)
	}
	d.absolute = true
	cfg := &d.Image.Config
	cfg.WorkingDir = resolvePath(cfg.WorkingDir, i.Path)
	isRoot := cfg.WorkingDir == "/"
	if !isRoot {
		if d.isEmpty() && ownerByName(cfg.User) {
			return noNames("USER " + cfg.User)
		}
		op := &Workdir{Path: path.Clean(cfg.WorkingDir), User: cfg.User, Time: m.created}
		if err := m.step(d, c, op, m.shown(d, i.String())); err != nil {
			return err
		}
	}
	return m.record(d, "WORKDIR "+cfg.WorkingDir, !isRoot)
}

// cwd is the working directory in a stage, absolute but perhaps not clean.
func (d *draft) cwd() string {
	if d.Image.Config.WorkingDir == "" {
		return "/"
	}
	return d.Image.Config.WorkingDir
}

// resolvePath is BuildKit's way with a path: relative to dir and cleaned, or,
// if it is absolute, as it is.
func resolvePath(dir, p string) string {
	if !path.IsAbs(dir) {
		dir = path.Join("/", dir)
	}
	switch {
	case p == "":
		return dir
	case path.IsAbs(p):
		return p
	}
	return path.Join(dir, p)
}

// resolveDest is resolvePath for the destination of a copy: cleaned by its
// text, so that .. after a link leads to what is written, and with a slash or
// /. at the end kept, since it says that the destination is a directory.
func resolveDest(dir, p string) string {
	if p == "." || p == "" {
		p = "./"
	}
	dest := path.Clean(resolvePath(dir, p))
	switch {
	case strings.HasSuffix(p, "/") && !strings.HasSuffix(dest, "/"):
		dest += "/"
	case strings.HasSuffix(p, "/.") && !strings.HasSuffix(dest, "/."):
		dest = strings.TrimSuffix(dest, "/") + "/."
	}
	return dest
}
