package flags

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// givenContext is the context as it was given; argument says that it was given
// as an argument rather than as a flag.
func (b *Build) givenContext(from From) (given string, argument bool, err error) {
	given = b.source.context
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
	return given, argument, nil
}

// scpStyle tells user@host:path from the path of a directory, as BuildKit does.
var scpStyle = regexp.MustCompile(`^[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:`)

// place is what a context is: a directory of the user's, or something that is
// unpacked or fetched inside.
type place struct {
	dir    string // real path; empty: see source
	source request.Source
}

// place makes sense of a context as it was given.
func (b *Build) place(given string, argument bool, from From) (place, error) {
	scheme, rest, _ := strings.Cut(given, "://")
	if rest == "" {
		scheme = ""
	}
	if len(b.named.git) > 0 && (scheme != "git" || argument) {
		return place{}, usagef("write the branch into the URL: #BRANCH", "--git is for --context git://, not for %s", shown(given))
	}
	if sub := b.named.subPath; sub != "" && !filepath.IsLocal(sub) {
		return place{}, usagef("", "--context-sub-path: %s: leads out of the context", sub)
	}
	switch scheme {
	case "":
		return b.bare(given, from)
	case "dir":
		return b.directory(given, rest, from)
	case "tar":
		return b.archive(given, rest, from)
	case "http", "https":
		return b.fetched(given, request.Source{URL: given, Text: true})
	case "ssh":
		return b.fetched(given, request.Source{URL: given})
	case "git":
		if argument {
			return b.fetched(given, request.Source{URL: given})
		}
		return b.kanikoGit(given, rest, from)
	}
	return place{}, usagef("unpack the context and name its directory", "--context: %s:// contexts: not supported yet", scheme)
}

// bare is a context without a scheme.
func (b *Build) bare(given string, from From) (place, error) {
	if given == Stdin {
		return place{source: request.Source{Tar: Stdin, Text: true, Dir: b.named.subPath}}, nil
	}
	_, err := os.Stat(absolute(from.Dir, given))
	if err != nil && (scpStyle.MatchString(given) || strings.HasPrefix(given, "github.com/")) {
		return b.fetched(given, request.Source{URL: given})
	}
	return b.directory(given, given, from)
}

// directory is a context that is a directory of the user's.
func (b *Build) directory(given, path string, from From) (place, error) {
	real, err := realDir(path, from.Dir)
	if err != nil {
		return place{}, inputf(contextHint(given), "context %s: %s", given, err)
	}
	if b.named.subPath == "" {
		return place{dir: real}, nil
	}
	sub, err := realDir(b.named.subPath, real)
	if err != nil {
		return place{}, inputf("", "--context-sub-path %s: %s", b.named.subPath, err)
	}
	return place{dir: sub}, nil
}

// contextHint helps where "--flag true" made "true" the context.
func contextHint(given string) string {
	if given == "true" || given == "false" {
		return "a flag without a value takes none after a space: write --flag=" + given
	}
	return ""
}

// archive is tar://, of a file or of standard input, as Kaniko has it.
func (b *Build) archive(given, path string, from From) (place, error) {
	src := request.Source{Tar: Stdin, Dir: b.named.subPath}
	if path == "stdin" {
		return place{source: src}, nil
	}
	path = absolute(from.Dir, path)
	real, err := stays(path, from.Dir)
	if err != nil {
		return place{}, inputf("", "context %s: %s", given, err)
	}
	if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
		return place{}, inputf("use tar://stdin for what is no file", "context %s: not a regular file", given)
	}
	src.Tar = request.GuestPath(real)
	return place{source: src}, nil
}

// fetched is a context that has a URL.
func (b *Build) fetched(given string, src request.Source) (place, error) {
	u, err := url.Parse(src.URL)
	if err == nil && strings.Contains(u.Host, ".blob.core.") && !u.Query().Has("sig") {
		return place{}, usagef("unpack the context and name its directory, or use a URL with a signature (sig=)",
			"--context: %s: containers of Azure are not supported yet", shown(given))
	}
	src.Dir = b.named.subPath
	return place{source: src}, nil
}

// kanikoGit is git:// in Kaniko's sense: git over HTTPS, with the reference and
// perhaps the commit as fragments.
func (b *Build) kanikoGit(given, rest string, from From) (place, error) {
	parts := strings.Split(rest, "#")
	scheme := "https://"
	if method, _ := from.Env("GIT_PULL_METHOD"); method == "http" {
		scheme = "http://"
	}
	u, err := url.Parse(scheme + parts[0])
	if err != nil || u.Host == "" || len(parts) > 3 {
		return place{}, usagef("git://HOST/REPOSITORY[#REF[#COMMIT]]", "--context: %s: not a git repository", shown(given))
	}
	if u.User == nil {
		u.User = gitUser(from)
	}
	g := &request.Git{KeepGitDir: true, Ref: strings.Join(parts[1:min(len(parts), 2)], "")}
	if err := b.gitOptions(g); err != nil {
		return place{}, err
	}
	if len(parts) == 3 {
		g.Ref = parts[2]
	}
	return b.fetched(given, request.Source{URL: u.String(), Git: g})
}

// gitUser is whom Kaniko's variables name: a token stands for the user.
func gitUser(from From) *url.Userinfo {
	if token, _ := from.Env("GIT_TOKEN"); token != "" {
		return url.UserPassword(token, "")
	}
	user, _ := from.Env("GIT_USERNAME")
	password, _ := from.Env("GIT_PASSWORD")
	if user == "" && password == "" {
		return nil
	}
	return url.UserPassword(user, password)
}

// gitOptions reads --git. Two of its options only say how much is fetched, and
// that is never more than is needed.
func (b *Build) gitOptions(g *request.Git) error {
	for _, option := range b.named.git {
		key, value, ok := strings.Cut(option, "=")
		var err error
		skip := false
		switch key {
		case "branch":
			g.Ref = value
		case "recurse-submodules":
			g.Submodules, err = strconv.ParseBool(value)
		case "single-branch":
			_, err = strconv.ParseBool(value)
		case "depth":
			_, err = strconv.Atoi(value)
		case "insecure-skip-tls":
			skip, err = strconv.ParseBool(value)
		default:
			ok = false
		}
		switch {
		case !ok:
			return usagef("", "--git: %q: want branch=, recurse-submodules=, single-branch= or depth=", option)
		case err != nil:
			return usagef("", "--git: %s: %q is no value of it", key, value)
		case skip:
			return usagef("", "--git: insecure-skip-tls: not supported yet")
		}
	}
	return nil
}

// shown is a context as given without what may be a credential: the password
// of a URL, and the user's name too, where tokens stand, and the query of a web
// server's, where signatures do.
func shown(text string) string {
	scheme, _, isURL := strings.Cut(text, "://")
	u, err := url.Parse(text)
	switch {
	case err != nil && isURL:
		return scheme + "://" // it repeats nothing that could not be read
	case err != nil, u.User == nil && (u.RawQuery == "" || !isURL):
		return text
	}
	if u.User != nil && scheme != "ssh" {
		u.User = url.UserPassword("xxxxx", "xxxxx")
	}
	if u.RawQuery != "" {
		u.RawQuery = "xxxxx"
	}
	return u.Redacted()
}

// realDir is the real path of a directory, given relative to dir. If it lies in
// dir, which may be a stranger's checkout, no link may lead out of it.
func realDir(path, dir string) (string, error) {
	real, err := stays(absolute(dir, path), dir)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(real); err != nil || !info.IsDir() {
		return "", errors.New("not a directory")
	}
	return real, nil
}

// stays is the real path of what a user named, unless a link in tree, where it
// lies, leads out of tree.
func stays(path, tree string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", errors.New(reason(err))
	}
	return real, staysBelow(path, tree)
}
