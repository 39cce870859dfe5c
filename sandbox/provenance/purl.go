package provenance

import (
	"net/url"
	"strings"
)

// packageURL is the package URL of an image (package-url/purl-spec), as
// BuildKit writes it: Docker Hub's names are short, a name without tag and
// digest is latest. kind is docker, or oci for an image of the user's disk;
// platform may be empty.
func packageURL(kind, ref, platform string) string {
	name, digest, _ := strings.Cut(ref, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	if tag == "" && digest == "" {
		tag = "latest"
	}
	parts := strings.Split(familiar(name), "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	out := "pkg:" + kind + "/" + strings.Join(parts, "/")
	if tag != "" {
		out += "@" + url.PathEscape(tag)
	}
	var qualifiers []string
	if digest != "" {
		qualifiers = append(qualifiers, "digest="+url.PathEscape(digest))
	}
	if platform != "" {
		qualifiers = append(qualifiers, platformQualifier+url.QueryEscape(platform))
	}
	if len(qualifiers) > 0 {
		out += "?" + strings.Join(qualifiers, "&")
	}
	return out
}

const platformQualifier = "platform="

// withoutPlatform is a package URL of ours for all platforms.
func withoutPlatform(purl string) string {
	if i := strings.LastIndex(purl, platformQualifier); i > 0 && strings.HasPrefix(purl, "pkg:") {
		return purl[:i-1]
	}
	return purl
}

// familiar is a repository's name as Docker shortens it.
func familiar(name string) string {
	host, rest, ok := strings.Cut(name, "/")
	if !ok || host != "docker.io" && host != "index.docker.io" && host != "registry-1.docker.io" {
		return name
	}
	return strings.TrimPrefix(rest, "library/")
}
