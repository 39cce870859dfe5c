package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// Limits of what is copied into the sandbox, in bytes (rule R18).
const (
	maxDockerfile = 8 << 20
	maxRoots      = 16 << 20
	maxSmall      = 1 << 20
)

// writeRoot makes the read-only root that all sandboxes of a run share: mount
// points, and the places where Go's libraries look.
func writeRoot(c Config, h home) error {
	dirs := []string{h.rootfs}
	for _, d := range []string{"proc", "dev", "sys", "tmp", "w", "context", "contexts", "store", "caches", "b", "in", "etc", "etc/ssl", "etc/ssl/certs"} {
		dirs = append(dirs, filepath.Join(h.rootfs, d))
	}
	for i := range c.Contexts {
		dirs = append(dirs, filepath.Join(h.rootfs, guestNamed(i)))
	}
	for i := range c.CacheFrom {
		dirs = append(dirs, filepath.Join(h.rootfs, guestResult(i)))
	}
	if err := mkdirs(dirs); err != nil {
		return err
	}
	for _, name := range []string{guestExecutor, guestArchive} {
		if err := os.WriteFile(filepath.Join(h.rootfs, name), nil, 0o555); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	for name, target := range map[string]string{
		"etc/resolv.conf":                   "/in/resolv.conf",
		"etc/hosts":                         "/in/hosts",
		"etc/ssl/certs/ca-certificates.crt": "/in/ca-certificates.crt",
	} {
		if err := os.Symlink(target, filepath.Join(h.rootfs, name)); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	return nil
}

func mkdirs(dirs []string) error {
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	return nil
}

// writeBundle fills the directory of one role's sandbox: config.json and the
// files that become /in.
func writeBundle(c Config, l layout, m mode) error {
	if err := mkdirs([]string{l.bundle, l.in, l.work, l.state}); err != nil {
		return err
	}
	for _, m := range layerMounts(c) {
		// A sandbox that started with a wrong guess may have left it.
		if err := os.Mkdir(filepath.Join(l.rootfs, m.Destination), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	if err := writeInputs(&c, l.in); err != nil {
		return err
	}
	s, err := newSpec(c, l, m)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(l.bundle, "config.json"), s)
}

// ownHosts is all that a sandbox's own table has; the gateway has the host's.
const ownHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

// writeInputs writes what the executor reads, request.json last.
func writeInputs(c *Config, in string) error {
	resolv, err := hostFile(c.ResolvConf, "/etc/resolv.conf")
	if err != nil {
		return notIn("resolv.conf", err)
	}
	roots, err := rootCertificates(c.CACertificates)
	if err != nil {
		return notIn("CA certificates", err)
	}
	resolv = gateway.SandboxResolvConf(resolv)
	c.Request.Gateway = c.Network.inside(c.Request.Role)
	if len(c.Request.Run.DNS) == 0 {
		c.Request.Run.DNS = strings.Split(strings.TrimRight(string(resolv), "\n"), "\n")
	}
	files := map[string][]byte{
		"resolv.conf": resolv, "hosts": []byte(ownHosts), "ca-certificates.crt": roots,
	}
	switch {
	case c.DockerfileData != nil:
		files[filepath.Base(guestDockerfile)] = c.DockerfileData
	case c.Dockerfile != "":
		if files[filepath.Base(guestDockerfile)], err = readBelow(c.Context, c.Dockerfile); err != nil {
			return notIn("Dockerfile", err)
		}
	}
	if c.Ignore != "" {
		if files[filepath.Base(guestIgnore)], err = readBelow(c.Context, c.Ignore); err != nil {
			return notIn("ignore file", err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(in, name), data, 0o444); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	return writeJSON(filepath.Join(in, "request.json"), c.Request)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	return nil
}

// readBelow reads a file that the user named. If it lies in the context, no
// symbolic link may lead out of it: the context may be somebody else's, and
// what the file says is shown in errors.
func readBelow(context, path string) ([]byte, error) {
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY // a FIFO must not block
	rel, err := filepath.Rel(context, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readRegular(f, maxDockerfile)
	}
	dir, err := os.OpenRoot(context)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenFile(rel, flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, maxDockerfile)
}

func readRegular(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.Name(), limit)
	}
	return b, nil
}

// hostFile reads a small file of the host; the standard one may be missing.
func hostFile(given, standard string) ([]byte, error) {
	path := given
	if path == "" {
		path = standard
	}
	f, err := os.Open(path)
	if err != nil {
		if given == "" && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	return readRegular(f, maxSmall)
}

// rootCertificates reads the given file, or the first of the places where
// distributions have theirs; without any, the executor trusts nobody.
func rootCertificates(given string) ([]byte, error) {
	places := []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		"/etc/ssl/cert.pem",
	}
	if given != "" {
		places = []string{given}
	}
	for _, p := range places {
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) && given == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readRegular(f, maxRoots)
	}
	return nil, nil
}
