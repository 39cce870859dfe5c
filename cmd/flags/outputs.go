package flags

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Outputs are the paths that results are written to; empty ones are not wanted.
type Outputs struct {
	Tar    string // a docker-save tar
	Layout string // the directory of an OCI image layout
	// The files that Write writes.
	Digest        string // sha256:<hex>, no newline
	ID            string // the same of the image's config, or of an index
	Metadata      string // JSON as docker buildx writes it
	NameDigest    string // repository@digest, a line for each destination
	NameTagDigest string // repository:tag@digest, a line for each destination
	// Provenance is a file that Write does not write.
	Provenance string
}

// resolve makes the paths absolute, and finds what would fail after the build.
// The current directory and the context may be a stranger's checkout: a path
// below one of them may not lead out of it by a link.
func (o Outputs) resolve(dir, context string) (Outputs, error) {
	for _, p := range []struct {
		flag string
		path *string
		dir  bool
	}{
		{"tar-path", &o.Tar, false},
		{"oci-layout-path", &o.Layout, true},
		{"digest-file", &o.Digest, false},
		{"iidfile", &o.ID, false},
		{"metadata-file", &o.Metadata, false},
		{"image-name-with-digest-file", &o.NameDigest, false},
		{"image-name-tag-with-digest-file", &o.NameTagDigest, false},
		{"provenance-file", &o.Provenance, false},
	} {
		if *p.path == "" {
			continue
		}
		if strings.Contains(*p.path, "://") {
			return Outputs{}, usagef("write a file and upload it", "--%s: a URL: not supported yet", p.flag)
		}
		*p.path = absolute(dir, *p.path)
		switch info, err := os.Stat(*p.path); {
		case err != nil: // made when it is written
		case p.dir && !info.IsDir():
			return Outputs{}, inputf("", "--%s: %s: not a directory", p.flag, *p.path)
		case !p.dir && info.IsDir():
			return Outputs{}, inputf("", "--%s: %s: is a directory", p.flag, *p.path)
		}
		for _, tree := range []string{dir, context} {
			if err := staysBelow(*p.path, tree); err != nil {
				return Outputs{}, inputf("name a path outside of it", "--%s: %s", p.flag, err)
			}
		}
		if err := writable(*p.path); err != nil {
			return Outputs{}, inputf("", "--%s: %s", p.flag, err)
		}
	}
	return o, nil
}

// record is the file that a flag names for what is written during a build, as an
// absolute path, or empty. Where dir or the context is a stranger's checkout, no link
// of it may lead out of it.
func record(flag, path, dir, context string) (string, error) {
	if path == "" {
		return "", nil
	}
	path = absolute(dir, path)
	for _, tree := range []string{dir, context} {
		if err := staysBelow(path, tree); err != nil {
			return "", inputf("name a path outside of it", "--%s: %s", flag, err)
		}
	}
	return path, nil
}

// staysBelow fails if path, which is written below tree, leads out of it by a
// symbolic link, whether what it names exists or not.
func staysBelow(path, tree string) error {
	if !below(path, tree) {
		return nil
	}
	real, err := filepath.EvalSymlinks(tree)
	if err != nil {
		return err
	}
	for at := path; at != tree && below(at, tree); at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := filepath.EvalSymlinks(at)
		if err != nil || !below(target, real) {
			return fmt.Errorf("%s: a symbolic link that leads out of %s", at, tree)
		}
	}
	return nil
}

// writable says why path, or a directory that it would be made in, cannot be
// written to.
func writable(path string) error {
	for {
		err := unix.Access(path, unix.W_OK)
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		}
		path = filepath.Dir(path)
	}
}

// Write writes the files that report a finished build. An existing file is
// written in place, never replaced: /dev/termination-log is a mount. The result
// comes from the sandbox, so what would break a line is refused.
func (o Outputs) Write(res request.Result) error {
	var names, tags strings.Builder
	if !isDigest(res.Digest) {
		return fmt.Errorf("result: %q is not a digest", res.Digest)
	}
	if res.Config != "" && !isDigest(res.Config) {
		return fmt.Errorf("result: %q is not a digest", res.Config)
	}
	for _, name := range slices.Concat(res.Names, res.Pushed) {
		if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("result: %q is not the name of an image", name)
		}
	}
	for _, name := range res.Names {
		fmt.Fprintf(&names, "%s@%s\n", repository(name), res.Digest)
		fmt.Fprintf(&tags, "%s@%s\n", name, res.Digest)
	}
	about, err := metadata(res)
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(o.Digest, res.Digest),
		writeFile(o.ID, cmp.Or(res.Config, res.Digest)),
		writeFile(o.Metadata, about),
		writeFile(o.NameDigest, names.String()),
		writeFile(o.NameTagDigest, tags.String()),
	)
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// metadata is the content of --metadata-file.
func metadata(res request.Result) (string, error) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	posture := ""
	if len(res.Posture) > 0 {
		var err error
		if posture, err = request.PostureDigest(res.Posture); err != nil {
			return "", err
		}
	}
	text, err := json.MarshalIndent(struct {
		Config     string     `json:"containerimage.config.digest,omitempty"`
		Descriptor descriptor `json:"containerimage.descriptor"`
		Digest     string     `json:"containerimage.digest"`
		Name       string     `json:"image.name,omitempty"`
		// What was measured of the walls, and the digest of that.
		Posture       []request.RolePosture `json:"kbuild.posture,omitempty"`
		PostureDigest string                `json:"kbuild.posture.digest,omitempty"`
	}{res.Config, descriptor{res.Media, res.Digest, res.Size}, res.Digest, strings.Join(res.Names, ","), res.Posture, posture}, "", "  ")
	return string(text), err
}

// repository is a name without its tag.
func repository(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

func writeFile(path, content string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
