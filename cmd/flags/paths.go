package flags

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// paths finds the context, the Dockerfile and the ignore file.
func (b *Build) paths(r *request.Build, from From) error {
	given, argument, err := b.givenContext(from)
	if err != nil {
		return err
	}
	at, err := b.place(given, argument, from)
	if err != nil {
		return err
	}
	r.Context, r.Source = request.GuestPath(at.dir), at.source
	r.DockerfileName = b.source.dockerfile
	name := b.source.dockerfile
	switch {
	case name == Stdin && r.Source.Tar == Stdin:
		return usagef("", "--dockerfile -: standard input cannot be both the context and the Dockerfile")
	case name == Stdin:
		r.Dockerfile, r.DockerfileName = Stdin, "<stdin>"
		r.Ignore, err = ignoreFile(at.dir, "")
		return err
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		r.DockerfileURL, r.DockerfileName = name, shown(name)
		r.Ignore, err = ignoreFile(at.dir, "")
		return err
	case strings.Contains(name, "://"):
		return usagef("download it and name the file", "--dockerfile: %s: only http:// and https:// are downloaded", shown(name))
	case at.dir == "":
		return b.dockerfileWithout(r, name)
	}
	named, err := b.findDockerfile(at.dir, argument, from)
	if err != nil {
		return err
	}
	if err := staysBelow(filepath.Dir(named), from.Dir); err != nil {
		return inputf(nameItself, "%s", err)
	}
	return laidOut(r, named, at.dir)
}

// dockerfileWithout settles the Dockerfile where the context is not there yet:
// a relative path lies in it, an absolute one is a file of the user's.
func (b *Build) dockerfileWithout(r *request.Build, name string) error {
	switch {
	case filepath.IsAbs(name):
		if _, err := isDockerfile(name, name); err != nil {
			return err
		}
		return laidOut(r, name, filepath.Dir(name))
	case !filepath.IsLocal(name):
		return usagef("", "--dockerfile: %s: leads out of the context", name)
	case b.set.Changed("dockerfile"):
		r.Dockerfile = request.GuestPath(name)
	}
	return nil
}

// laidOut takes a Dockerfile that is a file of the user's, with its ignore file.
func laidOut(r *request.Build, named, dir string) error {
	real, err := contained(named, dir)
	if err != nil {
		return err
	}
	if err := readable(real); err != nil {
		return &Error{Msg: "Dockerfile " + named + ": " + err.Error(), Input: true, Class: request.ClassParse, err: err}
	}
	r.Dockerfile = request.GuestPath(real)
	r.Ignore, err = ignoreFile(string(r.Context), named)
	return err
}

// readable says why a file cannot be read, without reading it.
func readable(path string) error { return unix.Access(path, unix.R_OK) }

// findDockerfile is the first place that has the Dockerfile; see the package's
// comment for the order.
func (b *Build) findDockerfile(dir string, argument bool, from From) (string, error) {
	name := b.source.dockerfile
	places := []string{absolute(from.Dir, name), absolute(dir, name)}
	if argument && !b.set.Changed("dockerfile") {
		places[0], places[1] = places[1], places[0]
	}
	places = slices.Compact(places)
	for _, path := range lowerToo(places) {
		dir, err := isDockerfile(path, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case dir && !b.set.Changed("dockerfile"):
			continue
		case err != nil:
			return "", err
		}
		return path, nil
	}
	return "", noDockerfile(name, places)
}

// lowerToo adds to each place of a Dockerfile the same in lower case, which
// BuildKit takes too.
func lowerToo(places []string) []string {
	var list []string
	for _, path := range places {
		list = append(list, path)
		if dir, base := filepath.Split(path); base == "Dockerfile" {
			list = append(list, dir+"dockerfile")
		}
	}
	return list
}

// isDockerfile says why the file at path cannot be the Dockerfile that the user
// calls name.
func isDockerfile(path, name string) (dir bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, noDockerfile(name, []string{path})
	case err != nil:
		return false, inputf("", "Dockerfile %s: %s", name, reason(err))
	case info.IsDir():
		return true, inputf("", "Dockerfile %s: is a directory", name)
	case !info.Mode().IsRegular():
		return false, inputf("use -f - to read it from standard input", "Dockerfile %s: not a regular file", name)
	}
	return false, nil
}

// noDockerfile is the error for a Dockerfile that is in none of the places.
func noDockerfile(name string, places []string) error {
	return &Error{
		Msg:   "no Dockerfile: " + name + ": no such file: please provide a valid path to a Dockerfile within the build context with --dockerfile",
		Hint:  "looked for " + strings.Join(places, " and "),
		Input: true, Class: request.ClassParse, err: fs.ErrNotExist,
	}
}

// ignoreFile is the ignore file that applies to a Dockerfile, or empty. One
// beside the Dockerfile wins over the context's. A Dockerfile that is no file
// (empty) has none beside it, and a context that is no directory yet (empty) is
// looked into later.
func ignoreFile(dir, dockerfile string) (request.GuestPath, error) {
	var places []string
	if dockerfile != "" {
		places = append(places, dockerfile+".dockerignore")
	}
	if dir != "" {
		places = append(places, filepath.Join(dir, ".dockerignore"))
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
		if err != nil {
			return "", err
		}
		if err := readable(real); err != nil {
			return "", inputf("", "ignore file %s: %s", path, err)
		}
		return request.GuestPath(real), nil
	}
	return "", nil
}

const nameItself = "name the file itself with --dockerfile"

// contained is the real path of a file that is about to be read on behalf of
// whoever wrote the context. A symbolic link in a pull request must not make
// the launcher read a file of the host: the real file has to lie in the
// context or, if the path does not go through that, in the directory that the
// path names.
func contained(path, dir string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", inputf("", "%s: %s", path, reason(err))
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", inputf("", "%s: %s", path, reason(err))
	}
	if !below(real, dir) && (within(path, dir) || !below(real, parent)) {
		return "", inputf(nameItself, "%s: a symbolic link that leads out of the context", path)
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
