package flags

import (
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// dockerHub is the one name of Docker Hub in a request.Registry.
const dockerHub = "index.docker.io"

// maxCertificates bounds one file of --registry-certificate, in bytes.
const maxCertificates = 1 << 20

// registries settles how registries are reached.
func (b *Build) registries(r *request.Build, from From) error {
	r.Registry = request.Registry{
		Insecure:     b.remote.insecure,
		InsecurePull: b.remote.insecurePull,
		SkipTLS:      b.remote.skipTLS,
		SkipTLSPull:  b.remote.skipTLS || b.remote.skipTLSPull, // Kaniko's --skip-tls-verify covers both ways
		SkipFallback: b.remote.skipFallback,
		PushRetry:    b.remote.pushRetry,
		PullRetry:    max(b.remote.pullRetry, b.remote.extractRetry),
	}
	var err error
	if r.Registry.InsecureHosts, err = hosts("insecure-registry", b.remote.insecureHosts); err != nil {
		return err
	}
	if r.Registry.SkipTLSHosts, err = hosts("skip-tls-verify-registry", b.remote.skipTLSHosts); err != nil {
		return err
	}
	if err := b.certificates(&r.Registry, from); err != nil {
		return err
	}
	return b.mirrors(&r.Registry, from)
}

func hosts(flag string, given []string) ([]string, error) {
	var list []string
	for _, g := range given {
		h, err := host(g)
		if err != nil {
			return nil, usagef("", "--%s: %s", flag, err)
		}
		if !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	return list, nil
}

// host brings host[:port], however written, into the form of request.Registry.
func host(s string) (string, error) {
	h := strings.TrimSuffix(strings.ToLower(s), "/")
	if _, rest, ok := strings.Cut(h, "://"); ok {
		h = rest
	}
	if h == "" || strings.ContainsAny(h, "/@,; \t\n\\") {
		return "", fmt.Errorf("%q: want a registry, host[:port]", s)
	}
	switch h {
	case "docker.io", "registry-1.docker.io", "index.docker.io":
		return dockerHub, nil
	}
	return h, nil
}

// certificates reads the files of --registry-certificate.
func (b *Build) certificates(r *request.Registry, from From) error {
	for _, c := range b.remote.certificates {
		h, err := host(c.Key)
		if err != nil || c.Value == "" {
			return usagef("", "--registry-certificate: %q: want host=file", c.Key+"="+c.Value)
		}
		data, err := readCertificates(absolute(from.Dir, c.Value))
		if err != nil {
			return inputf("", "--registry-certificate: %s", err)
		}
		if r.Certificates == nil {
			r.Certificates = map[string][]byte{}
		}
		r.Certificates[h] = append(r.Certificates[h], data...)
	}
	return nil
}

// readCertificates reads a file with PEM certificates. What else is in it, a
// private key above all, is left out: only certificates go into the sandbox.
func readCertificates(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCertificates+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCertificates {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxCertificates)
	}
	var out []byte
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no certificate in PEM form", filepath.Base(path))
	}
	return out, nil
}

// mirrors takes --registry-map and --registry-mirror; each has its environment
// variable as the default.
func (b *Build) mirrors(r *request.Registry, from From) error {
	maps, mirrors := b.remote.maps, b.remote.mirrors
	if v, ok := from.Env("KANIKO_REGISTRY_MAP"); ok && v != "" && len(maps) == 0 {
		maps = []string{v}
	}
	if v, ok := from.Env("KANIKO_REGISTRY_MIRROR"); ok && v != "" && len(mirrors) == 0 {
		mirrors = []string{v}
	}
	for _, m := range maps {
		for entry := range strings.SplitSeq(strings.TrimSuffix(m, ";"), ";") {
			original, location, ok := strings.Cut(entry, "=")
			h, err := host(original)
			if !ok || err != nil {
				return usagef("", "--registry-map: %q: want host=host[/prefix]", entry)
			}
			if err := addMirror(r, h, location); err != nil {
				return usagef("", "--registry-map: %s", err)
			}
		}
	}
	for _, m := range mirrors {
		if err := addMirror(r, dockerHub, m); err != nil {
			return usagef("", "--registry-mirror: %s", err)
		}
	}
	return nil
}

// addMirror adds one mirror. A scheme may be written: http:// means what
// --insecure-registry means for that host.
func addMirror(r *request.Registry, original, location string) error {
	scheme, rest, ok := strings.Cut(location, "://")
	if !ok {
		scheme, rest = "https", location
	}
	first, prefix, _ := strings.Cut(rest, "/")
	h, err := host(first)
	if err != nil || (scheme != "https" && scheme != "http") {
		return fmt.Errorf("%q: want host[:port][/prefix]", location)
	}
	if scheme == "http" && !slices.Contains(r.InsecureHosts, h) {
		r.InsecureHosts = append(r.InsecureHosts, h)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		h += "/" + prefix
	}
	m := request.Mirror{Host: original, Location: h}
	if !slices.Contains(r.Maps, m) {
		r.Maps = append(r.Maps, m)
	}
	return nil
}
