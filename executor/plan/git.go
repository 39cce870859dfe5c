package plan

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// GitSource is the address of a git repository with all that BuildKit lets it
// say in fragment and query.
type GitSource struct {
	// Repository is what it asks for. Its KeepGitDir is not set.
	Repository Repository
	// KeepGitDir is nil if the address does not say.
	KeepGitDir *bool
}

var (
	protocol = regexp.MustCompile(`^([a-zA-Z0-9]+)://`)
	// scpStyle is user@host:path?query#fragment.
	scpStyle = regexp.MustCompile(`^([a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:.*?)(?:\?(.*?))?(?:#(.*))?$`)
)

// ParseGit reads the address of a git repository by BuildKit's rules
// (frontend/dockerfile/dfgitutil): git and ssh URLs, web URLs whose path ends in
// .git, and user@host:path, each with "#ref:subdir" or a query. It returns nil
// for what is none, such as a path.
func ParseGit(src string) (*GitSource, error) {
	if strings.HasPrefix(src, "./") || strings.HasPrefix(src, "../") {
		return nil, nil
	}
	if match := protocol.FindStringSubmatch(src); match != nil {
		return parseGitURL(src, strings.ToLower(match[1]))
	}
	match := scpStyle.FindStringSubmatch(src)
	if match == nil {
		return nil, nil
	}
	query, err := url.ParseQuery(match[2])
	if err != nil {
		return nil, errors.New("invalid query in scp-style url")
	}
	return newGitSource(match[1], match[3], query)
}

// ParseGitContext reads the address of a repository that is a build context:
// there github.com/owner/name is one too.
func ParseGitContext(src string) (*GitSource, error) {
	if !strings.HasPrefix(src, "github.com/") {
		return ParseGit(src)
	}
	return splitGitURL("https://" + src)
}

func parseGitURL(src, scheme string) (*GitSource, error) {
	switch scheme {
	case "git", "ssh":
		return splitGitURL(src)
	case "http", "https":
		if u, err := url.Parse(src); err == nil && strings.HasSuffix(u.Path, ".git") {
			return splitGitURL(src)
		}
	}
	return nil, nil
}

func splitGitURL(src string) (*GitSource, error) {
	u, err := url.Parse(src)
	if err != nil {
		return nil, errors.New("invalid URL of a git repository") // the error repeats the text, with a password
	}
	plain := *u
	plain.Fragment, plain.RawFragment, plain.RawQuery = "", "", ""
	return newGitSource(plain.String(), u.Fragment, u.Query())
}

func newGitSource(address, fragment string, query url.Values) (*GitSource, error) {
	g := &GitSource{Repository: Repository{URL: address}}
	ref, subdir, _ := strings.Cut(fragment, ":")
	g.Repository.Ref, g.Repository.Subdir = ref, strings.TrimPrefix(path.Join("/", subdir), "/")
	// Sorted, so that of several mistakes the same is told each time.
	for _, key := range slices.Sorted(maps.Keys(query)) {
		values := query[key]
		if len(values) > 1 {
			return nil, fmt.Errorf("query %q has multiple values", key)
		}
		if err := g.set(key, values[0]); err != nil {
			return nil, err
		}
	}
	return g, g.setTagOrBranch(query.Get("tag"), query.Get("branch"))
}

// set takes in one key of the query.
func (g *GitSource) set(key, value string) (err error) {
	r := &g.Repository
	flag := key == "keep-git-dir" || key == "submodules" || key == "fetch-by-commit"
	if value == "" && !flag {
		return fmt.Errorf("query %q has no value", key)
	}
	on := value == "" // a flag alone is meant
	if flag && !on {
		if on, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("invalid %s value: %q", key, value)
		}
	}
	switch key {
	case "ref":
		err = agree("ref", &r.Ref, value)
	case "subdir":
		err = agree("subdir", &r.Subdir, value)
	case "checksum", "commit":
		err = agree("checksum", &r.Commit, value)
	case "keep-git-dir":
		g.KeepGitDir = &on
	case "submodules":
		r.NoSubmodules = !on
	case "fetch-by-commit":
		r.FetchByCommit = on
	case "mtime":
		if value != "checkout" && value != "commit" {
			return fmt.Errorf(`invalid mtime value: %q (must be "checkout" or "commit")`, value)
		}
		r.CommitTime = value == "commit"
	case "tag", "branch": // see setTagOrBranch
	default:
		return fmt.Errorf("unexpected query %q", key)
	}
	return err
}

// setTagOrBranch comes last, since both are written short or in full.
func (g *GitSource) setTagOrBranch(tag, branch string) error {
	ref := ""
	switch {
	case tag != "" && branch != "":
		return errors.New("branch conflicts with tag")
	case tag != "":
		ref = "refs/tags/" + strings.TrimPrefix(tag, "refs/tags/")
	case branch != "":
		ref = "refs/heads/" + strings.TrimPrefix(branch, "refs/heads/")
	default:
		return nil
	}
	return agree("ref", &g.Repository.Ref, ref)
}

// agree sets what may have been said before, if that was the same.
func agree(what string, have *string, value string) error {
	if *have != "" && *have != value {
		return fmt.Errorf("%s conflicts: %q vs %q", what, *have, value)
	}
	*have = value
	return nil
}
