package plan

import (
	_ "crypto/sha256" // digest.Parse knows the algorithms that are linked in
	"errors"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
)

// isHTTP says whether a source of ADD, known to be no git repository, is a URL.
func isHTTP(src string) bool {
	return strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")
}

// protocol and scpStyle tell a git repository's address from a path.
var (
	protocol = regexp.MustCompile(`^([a-zA-Z0-9]+)://`)
	scpStyle = regexp.MustCompile(`^[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:`)
)

// classifyGit says whether a source names a git repository, by BuildKit's
// rules: git and ssh URLs, web URLs whose path ends in .git, and user@host:path.
func classifyGit(src string) (bool, error) {
	if strings.HasPrefix(src, "./") || strings.HasPrefix(src, "../") {
		return false, nil
	}
	match := protocol.FindStringSubmatch(src)
	if match == nil {
		return scpStyle.MatchString(src), nil
	}
	u, err := url.Parse(src)
	switch strings.ToLower(match[1]) {
	case "git", "ssh":
		return true, err
	case "http", "https":
		return err == nil && strings.HasSuffix(u.Path, ".git"), nil
	}
	return false, nil
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

// checkChecksum checks ADD --checksum.
func checkChecksum(i *instructions.AddCommand) error {
	if i.Checksum == "" {
		return nil
	}
	if len(i.SourcePaths) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	src := i.SourcePaths[0]
	if isGit, err := classifyGit(src); isGit || err != nil {
		return err // of a commit, with its own rules
	}
	if !isHTTP(src) {
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	sum, err := digest.Parse(i.Checksum)
	if err != nil {
		return err
	}
	if sum.Algorithm() != digest.SHA256 {
		return dockerfile.Errorf(request.ClassUnsupported, nil, "ADD --checksum with %s is not supported, use sha256", sum.Algorithm())
	}
	return nil
}
