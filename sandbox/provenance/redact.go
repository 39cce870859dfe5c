package provenance

import (
	"net/url"
	"regexp"
	"strings"
)

// redacted stands for what was taken out, as BuildKit writes it.
const redacted = "xxxxx"

// userinfo is what stands before the host of a URL, wherever it is in a text.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/?#\s@"']*:)?[^/?#\s"']*@`)

// secretWords are parts of names of query parameters that hold credentials, in
// lower case: signed URLs of clouds, tokens of forges.
var secretWords = []string{"token", "sig", "secret", "password", "passwd", "credential", "auth", "key", "jwt", "session"}

// redactText takes user names and passwords out of all URLs in a text.
func redactText(s string) string {
	return userinfo.ReplaceAllStringFunc(s, func(m string) string {
		scheme, who, _ := strings.Cut(m, "://")
		if strings.Contains(who, ":") {
			return scheme + "://" + redacted + ":" + redacted + "@"
		}
		return scheme + "://" + redacted + "@"
	})
}

// redactURL does the same with a URL, and takes out the values of query
// parameters whose names speak of credentials.
func redactURL(s string) string {
	if at := strings.LastIndexByte(s, '@'); at > 0 && malformed(s) {
		scheme, _, _ := strings.Cut(s, "://") // a password with a slash, say
		return scheme + "://" + redacted + s[at:]
	}
	s = redactText(s)
	head, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	query, fragment, hasFragment := strings.Cut(query, "#")
	fields := strings.Split(query, "&")
	for i, f := range fields {
		name, _, _ := strings.Cut(f, "=")
		if plain, err := url.QueryUnescape(name); err != nil || speaksOfSecret(plain) {
			fields[i] = name + "=" + redacted
		}
	}
	s = head + "?" + strings.Join(fields, "&")
	if hasFragment {
		s += "#" + fragment
	}
	return s
}

func malformed(s string) bool {
	_, err := url.Parse(s)
	return err != nil && strings.Contains(s, "://")
}

func speaksOfSecret(name string) bool {
	name = strings.ToLower(name)
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}
