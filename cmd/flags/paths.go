package flags

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// paths finds the context, the Dockerfile and the ignore file.
func (b *Build) paths(r *request.Build, from From) error {
	dir, argument, err := b.contextDir(from)
	if err != nil {
		return err
	}
	r.Context = request.GuestPath(dir)
	r.DockerfileName = b.source.dockerfile
	if b.source.dockerfile == Stdin {
		r.Dockerfile, r.DockerfileName = Stdin, "<stdin>"
		r.Ignore, err = ignoreFile(dir, "")
		return err
	}
	if strings.Contains(b.source.dockerfile, "://") {
		return usagef("download it and name the file", "--dockerfile: %s: a URL: not supported yet", b.source.dockerfile)
	}
	named, err := b.findDockerfile(dir, argument, from)
	if err != nil {
		return err
	}
	real, err := contained(named, dir)
	if err != nil {
		return err
	}
	r.Dockerfile = request.GuestPath(real)
	r.Ignore, err = ignoreFile(dir, named)
	return err
}

// contextDir is the real path of the context; argument says that it was given
// as an argument rather than as a flag.
func (b *Build) contextDir(from From) (dir string, argument bool, err error) {
	given := b.source.context
	switch {
	case len(from.Args) > 1:
		return "", false, usagef("give a flag's value as --flag=value", "one context at most, but there are %d arguments: %s", len(from.Args), strings.Join(from.Args, " "))
	case len(from.Args) == 1 && b.set.Changed("context"):
		return "", false, usagef("", "two contexts: the argument %s and --context %s", from.Args[0], given)
	case len(from.Args) == 1:
		given, argument = from.Args[0], true
	case !b.set.Changed("context"):
		given = from.Context
	}
	if given == "" {
		return "", false, usagef("", "please specify a path to the build context with the --context flag")
	}
	path, err := localContext(given)
	if err != nil {
		return "", false, err
	}
	real, err := filepath.EvalSymlinks(absolute(from.Dir, path))
	if err != nil {
		return "", false, inputf(contextHint(given), "context %s: %s", given, reason(err))
	}
	if info, err := os.Stat(real); err != nil || !info.IsDir() {
		return "", false, inputf("", "context %s: not a directory", given)
	}
	return real, argument, nil
}

// localContext is the path in a context that is a local directory.
func localContext(given string) (string, error) {
	if path, ok := strings.CutPrefix(given, "dir://"); ok {
		return path, nil
	}
	if scheme, _, ok := strings.Cut(given, "://"); ok {
		return "", usagef("use a local directory or dir://", "--context: %s:// contexts: not supported yet", scheme)
	}
	if given == Stdin {
		return "", usagef("unpack the context and name its directory", "--context: a context from standard input: not supported yet")
	}
	if strings.HasPrefix(given, "git@") {
		return "", usagef("clone the repository and name its directory", "--context: git over SSH: not supported yet")
	}
	return given, nil
}

// contextHint helps where "--flag true" made "true" the context.
func contextHint(given string) string {
	if given == "true" || given == "false" {
		return "a flag without a value takes none after a space: write --flag=" + given
	}
	return ""
}

// findDockerfile is the first place that has the Dockerfile; see the package's
// comment for the order.
func (b *Build) findDockerfile(dir string, argument bool, from From) (string, error) {
	name := b.source.dockerfile
	places := []string{absolute(from.Dir, name), absolute(dir, name)}
	if argument && !b.set.Changed("dockerfile") {
		places[0], places[1] = places[1], places[0]
	}
	for _, path := range places {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", inputf("", "Dockerfile %s: %s", name, reason(err))
		case info.IsDir():
			if !b.set.Changed("dockerfile") {
				continue
			}
			return "", inputf("", "Dockerfile %s: is a directory", name)
		case !info.Mode().IsRegular():
			return "", inputf("use -f - to read it from standard input", "Dockerfile %s: not a regular file", name)
		}
		return path, nil
	}
	return "", inputf("looked for "+strings.Join(slices.Compact(places), " and "),
		"no Dockerfile: %s: no such file: please provide a valid path to a Dockerfile within the build context with --dockerfile", name)
}

// ignoreFile is the ignore file that applies to a Dockerfile, or empty. One
// beside the Dockerfile wins over the context's; with a Dockerfile from
// standard input (empty) there is only the context's.
func ignoreFile(dir, dockerfile string) (request.GuestPath, error) {
	places := []string{filepath.Join(dir, ".dockerignore")}
	if dockerfile != "" {
		places = append([]string{dockerfile + ".dockerignore"}, places...)
	}
	for _, path := range places {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", inputf("", "ignore file %s: %s", path, reason(err))
		}
		if !info.Mode().IsRegular() {
			return "", inputf("", "ignore file %s: not a regular file", path)
		}
		real, err := contained(path, dir)
		return request.GuestPath(real), err
	}
	return "", nil
}

// contained is the real path of a file that is about to be read on behalf of
// whoever wrote the context. A symbolic link in a pull request must not make
// the launcher read a file of the host: the real file has to lie in the
// context or in the directory that the path names.
func contained(path, dir string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", inputf("", "%s: %s", path, reason(err))
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", inputf("", "%s: %s", path, reason(err))
	}
	if !below(real, dir) && !below(real, parent) {
		return "", inputf("name the file itself with --dockerfile", "%s: a symbolic link that leads out of the context", path)
	}
	return real, nil
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// reason is the cause of a path error without the call and the path, which the
// message has already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
