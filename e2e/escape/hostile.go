package escape

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
)

// Public is a listener of the world, where builds may go; the server of an
// attacker.
func (t *Target) Public() net.Listener {
	t.Helper()
	l, err := t.World.Listen(PublicIPv4 + ":0")
	must(t, err)
	return l
}

// Loopback is a listener of the runner's own, where a build may go if the command
// line says so.
func (t *Target) Loopback() net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

// rebinding is a name that is good when it is looked up first, for both families,
// and the metadata service afterwards.
func rebinding() func() []string {
	var asked atomic.Int64
	return func() []string {
		if asked.Add(1) <= 2 {
			return []string{PublicIPv4}
		}
		return []string{"169.254.169.254"}
	}
}

// BuildWith builds with an executor that was taken over; see package hostile.
func (t *Target) BuildWith(script string, b Build) *Result {
	t.Helper()
	file := filepath.Join(t.Dir, "out", "executor")
	hostile.Executor(t, file, filepath.Join(t.Bin, "kbuild-executor"), t.Here(script))
	b.Args = append([]string{"--executor", file}, b.Args...)
	return t.Build(b)
}

// Here fills in the attack's directory, $DIR, beside what Expand knows.
func (t *Target) Here(text string) string { return strings.ReplaceAll(t.Expand(text), "$DIR", t.Dir) }

// DockerConfig writes a config.json with the password of user builder for each
// host, beside the site's registry, and returns the variable that names it.
func (t *Target) DockerConfig(passwords map[string]string) string {
	t.Helper()
	auths := map[string]any{}
	passwords[t.Registry] = t.Login.Password
	for host, password := range passwords {
		auths[host] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("builder:" + password))}
	}
	b, err := json.Marshal(map[string]any{"auths": auths})
	must(t, err)
	dir := filepath.Join(t.Dir, "docker")
	put(t, filepath.Join(dir, "config.json"), string(b), 0o600)
	t.chown(dir)
	return "DOCKER_CONFIG=" + dir
}

// busyboxLayer is a layer with busybox, its shell and the tools that rows need.
func busyboxLayer(t *Target, more ...hostile.Entry) []byte {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	entries := []hostile.Entry{
		{Name: "bin/", Type: tar.TypeDir}, {Name: "etc/", Type: tar.TypeDir}, {Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
		{Name: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\n"}, {Name: "bin/busybox", Data: string(busybox)},
	}
	for _, tool := range []string{"sh", "cat", "ls", "mkdir", "true", "find", "grep", "wget", "dirname"} {
		entries = append(entries, hostile.Entry{Name: "bin/" + tool, Type: tar.TypeSymlink, Link: "busybox"})
	}
	return hostile.Tar(t, append(entries, more...)...)
}

func decode(t *Target, b []byte, v any) {
	t.Helper()
	must(t, json.Unmarshal(b, v))
}

func encode(t *Target, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}
