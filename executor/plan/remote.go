package plan

import (
	_ "crypto/sha256" // digest.Parse knows the algorithms that are linked in
	_ "crypto/sha512"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
)

// isHTTP says whether a source of ADD, known to be no git repository, is a URL.
func isHTTP(src string) bool {
	return strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")
}

// remoteName is the name of the file that a URL is downloaded to where the
// destination is a directory.
func remoteName(src string) string {
	if u, err := url.Parse(src); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			return base
		}
	}
	return "__unnamed__"
}

// newRemote makes a source of ADD of what is no path, else it returns nil.
func newRemote(i *instructions.AddCommand, src string) (*Remote, error) {
	g, err := ParseGit(src)
	switch {
	case err != nil:
		return nil, err
	case g != nil:
		return newGitRemote(i, g)
	case !isHTTP(src):
		return nil, nil
	}
	if i.Checksum != "" {
		if _, err := digest.Parse(i.Checksum); err != nil {
			return nil, err
		}
	}
	return &Remote{URL: src, Checksum: i.Checksum, Name: remoteName(src)}, nil
}

func newGitRemote(i *instructions.AddCommand, g *GitSource) (*Remote, error) {
	r := g.Repository
	if i.KeepGitDir != nil && g.KeepGitDir != nil && *i.KeepGitDir != *g.KeepGitDir {
		return nil, errors.New("inconsistent keep-git-dir configuration")
	}
	for _, keep := range []*bool{i.KeepGitDir, g.KeepGitDir} {
		r.KeepGitDir = r.KeepGitDir || keep != nil && *keep
	}
	if i.Checksum != "" && r.Commit != "" && i.Checksum != r.Commit {
		return nil, fmt.Errorf("checksum mismatch %q != %q", i.Checksum, r.Commit)
	}
	if i.Checksum != "" {
		r.Commit = i.Checksum
	}
	return &Remote{Git: &r}, nil
}

// checkChecksum checks what ADD --checksum may be said of.
func checkChecksum(i *instructions.AddCommand) error {
	if i.Checksum == "" {
		return nil
	}
	if len(i.SourcePaths) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	if g, err := ParseGit(i.SourcePaths[0]); g != nil || err != nil || isHTTP(i.SourcePaths[0]) {
		return err
	}
	return errors.New("checksum requires HTTP(S) or Git sources")
}
