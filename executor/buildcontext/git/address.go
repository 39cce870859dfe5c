package git

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// scpStyle is user@host:path, as BuildKit takes it.
var scpStyle = regexp.MustCompile(`^([a-zA-Z0-9-_]+)@([a-zA-Z0-9-.]+):(.*)$`)

// parseAddress reads the address of a repository: a URL of one of the schemes
// http, https, ssh and git, or user@host:path. Errors do not repeat it, for it
// may hold a password.
func parseAddress(s string) (*url.URL, error) {
	if m := scpStyle.FindStringSubmatch(s); m != nil {
		// The path is relative to the user's home directory.
		return checkAddress(&url.URL{Scheme: "ssh", User: url.User(m[1]), Host: m[2], Opaque: m[3]})
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("invalid URL of a git repository")
	}
	return checkAddress(u)
}

func checkAddress(u *url.URL) (*url.URL, error) {
	u.Scheme = strings.ToLower(u.Scheme)
	switch u.Scheme {
	case "http", "https", "ssh", "git":
	default:
		return nil, fmt.Errorf("scheme %q: git repositories are fetched by http, https, ssh and git only", u.Scheme)
	}
	switch {
	case u.Hostname() == "" || strings.HasPrefix(u.Host, "-"):
		return nil, errors.New("the URL of a git repository has no host")
	case remotePath(u) == "" || strings.HasPrefix(remotePath(u), "-"):
		return nil, errors.New("the URL of a git repository has no path")
	case strings.ContainsAny(remotePath(u)+u.Host, "\x00\r\n"):
		return nil, errors.New("the URL of a git repository has control characters")
	}
	return u, nil
}

// remotePath is the path that git-upload-pack is asked for.
func remotePath(u *url.URL) string {
	if u.Opaque != "" {
		return u.Opaque
	}
	return u.Path
}

// shown is an address without what may be a credential.
func shown(u *url.URL) string {
	if u.Opaque != "" {
		return u.User.Username() + "@" + u.Host + ":" + u.Opaque
	}
	return buildcontext.Shown(u)
}

// moduleAddress resolves a submodule's address against that of the repository
// that has it: only what begins with ./ or ../ is relative (gitmodules).
func moduleAddress(parent *url.URL, s string) (*url.URL, error) {
	if !strings.HasPrefix(s, "./") && !strings.HasPrefix(s, "../") {
		return parseAddress(s)
	}
	u := *parent
	at := path.Join("/", strings.TrimSuffix(remotePath(parent), "/"), s)
	u.RawPath, u.RawQuery = "", ""
	if parent.Opaque != "" {
		u.Opaque = strings.TrimPrefix(at, "/")
	} else {
		u.Path = at
	}
	return checkAddress(&u)
}
