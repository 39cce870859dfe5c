package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Where contexts are inside. No name of theirs goes into a mount.
const (
	guestArchive  = "/context.tar"
	guestContexts = "/contexts" // one directory a named context: 0, 1, ...
)

func guestNamed(i int) string { return guestContexts + "/" + strconv.Itoa(i) }

// checkContext says what of the context and the Dockerfile is missing.
func (c Config) checkContext() error {
	switch {
	case c.Context == "" && c.Request.Source == (request.Source{}) && c.Request.Call != request.CallWarm:
		return errors.New("sandbox: no context given")
	case c.Context != "" && c.Dockerfile == "" && c.DockerfileData == nil && c.Request.DockerfileURL == "":
		return errors.New("sandbox: no Dockerfile given")
	case len(c.Contexts) > len(c.Request.Contexts):
		return errors.New("sandbox: directories of named contexts that nobody asked for")
	}
	return nil
}

// moveContexts gives the request the guest's paths of all contexts and of the
// Dockerfile.
func (c *Config) moveContexts() {
	r := &c.Request
	if c.Context != "" {
		r.Context = guestContext
	}
	if c.Archive != "" || c.Stdin != nil {
		r.Source.Tar = guestArchive
	}
	if c.Dockerfile != "" || c.DockerfileData != nil {
		r.Dockerfile = guestDockerfile
	}
	if c.Ignore != "" {
		r.Ignore = guestIgnore
	}
	r.Contexts = slices.Clone(r.Contexts)
	for i, dir := range c.Contexts {
		switch n := &r.Contexts[i]; {
		case dir == "":
		case n.Layout != "":
			n.Layout = request.GuestPath(guestNamed(i))
		default:
			n.Dir = request.GuestPath(guestNamed(i))
		}
	}
}

// contextMounts are the mounts of all contexts.
func contextMounts(c Config, l layout) []specs.Mount {
	var list []specs.Mount
	if c.Context != "" {
		list = append(list, readOnly(guestContext, c.Context))
	}
	switch {
	case c.Archive != "":
		list = append(list, readOnly(guestArchive, c.Archive))
	case c.Stdin != nil:
		list = append(list, readOnly(guestArchive, l.archive))
	}
	for i, dir := range c.Contexts {
		// Images of a layout are fetch's to read.
		if dir != "" && (c.Request.Contexts[i].Layout == "" || c.Request.Role == request.RoleFetch) {
			list = append(list, readOnly(guestNamed(i), dir))
		}
	}
	return append(list, resultMounts(c)...)
}

// resolveContexts is resolvePlaces for all contexts.
func resolveContexts(c *Config) error {
	c.Contexts = slices.Clone(c.Contexts)
	dirs := map[string]*string{"context": &c.Context}
	for i := range c.Contexts {
		dirs["build context "+strconv.Itoa(i)] = &c.Contexts[i]
	}
	for name, p := range dirs {
		if *p == "" {
			continue
		}
		real, err := filepath.EvalSymlinks(*p)
		if err != nil {
			return notIn(name, err)
		}
		if p == &c.Context {
			moveBelow(*p, real, &c.Dockerfile)
			moveBelow(*p, real, &c.Ignore)
		}
		*p = real
		if info, err := os.Stat(real); err != nil || !info.IsDir() {
			return notIn(name, fmt.Errorf("%s is not a directory", real))
		}
		if below(c.WorkDir, real) {
			return fmt.Errorf("the work directory %s lies in the build context %s: use another one", c.WorkDir, real)
		}
	}
	if c.Archive == "" {
		return nil
	}
	real, err := filepath.EvalSymlinks(c.Archive)
	if err != nil {
		return notIn("context", err)
	}
	c.Archive = real
	if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
		return notIn("context", fmt.Errorf("%s is not a regular file", real))
	}
	return nil
}

// takeStdin copies standard input into the run's directory: no stream of the
// host's goes into the sandbox. It may take all the space that is left but what
// the smallest build needs.
func takeStdin(ctx context.Context, c Config, l home) error {
	if c.Stdin == nil {
		return nil
	}
	free, err := freeSpace(l.dir)
	if err != nil {
		return err
	}
	limit := free - margin - minQuota
	if limit < 0 {
		return &SpaceError{Dir: l.dir, Free: free, Need: margin + minQuota}
	}
	f, err := os.OpenFile(l.archive, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("keep the context: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		n, err := io.Copy(f, io.LimitReader(c.Stdin, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("more than the %d MiB that %s has room for", limit>>20, c.WorkDir)
		}
		done <- errors.Join(err, f.Close())
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		// Whoever writes may never end; a read cannot be called off.
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("read the context from standard input: %w", err)
	}
	return nil
}
