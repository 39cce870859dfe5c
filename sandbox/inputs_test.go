package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A Dockerfile in the context may not lead out of it: its text comes back in
// errors.
func TestReadBelow(t *testing.T) {
	dir := t.TempDir()
	ctx := filepath.Join(dir, "ctx")
	write := func(name, data string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link := func(target, name string) string {
		p := filepath.Join(ctx, name)
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	in, out := write("ctx/sub/Dockerfile", "in"), write("Dockerfile", "out")
	fifo := filepath.Join(ctx, "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	big := write("ctx/big", "")
	if err := os.Truncate(big, maxDockerfile+1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want, err string }{
		{"inside", in, "in", ""},
		{"outside, as named", out, "out", ""},
		{"link inside", link("sub/Dockerfile", "good"), "in", ""},
		{"link out", link("../Dockerfile", "bad"), "", "escapes"},
		{"absolute link", link(out, "abs"), "", "escapes"},
		{"link to a link out", link("bad", "worse"), "", "escapes"},
		{"through a directory link", filepath.Join(link("..", "up"), "Dockerfile"), "", "escapes"},
		{"directory", filepath.Join(ctx, "sub"), "", "not a regular file"},
		{"fifo", fifo, "", "not a regular file"},
		{"device", "/dev/zero", "", "not a regular file"},
		{"too large", big, "", "larger than"},
		{"missing", filepath.Join(ctx, "none"), "", "no such file"},
	} {
		b, err := readBelow(ctx, tt.path)
		if tt.err == "" && (err != nil || string(b) != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"no context", func(c *Config) { c.Context = "/nowhere" }, "context: lstat /nowhere: no such file"},
		{"context is a file", func(c *Config) { c.Context = c.Executor }, "is not a directory"},
		{"no executor", func(c *Config) { c.Executor = "/nowhere" }, "executor: lstat /nowhere"},
		{"work directory in the context", func(c *Config) { c.WorkDir = filepath.Join(c.Context, "tmp") }, "lies in the build context"},
		{"no Dockerfile", func(c *Config) { c.DockerfileData, c.Dockerfile = nil, filepath.Join(c.Context, "Dockerfile") }, "Dockerfile: openat Dockerfile: no such file"},
		{"no ignore file", func(c *Config) { c.Ignore = filepath.Join(c.Context, "x") }, "ignore file: openat x: no such file"},
		{"no runsc", func(c *Config) { c.Runsc = nil }, "gVisor: no runsc"},
		{"no certificates", func(c *Config) { c.CACertificates = "/nowhere" }, "CA certificates: open /nowhere"},
		{"long work directory", func(c *Config) { c.WorkDir = filepath.Join(c.WorkDir, strings.Repeat("x", 90)) }, "use a shorter one"},
	} {
		_, _, err := run(t, newJob(t, "ok"), tt.change)
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}

// A context that is a symbolic link, and a Dockerfile named through it.
func TestLinkedContext(t *testing.T) {
	j := newJob(t, "unused")
	link := filepath.Join(j.Base, "link")
	if err := os.Symlink("ctx", link); err != nil {
		t.Fatal(err)
	}
	_, said, err := run(t, j, func(c *Config) {
		if err := os.WriteFile(filepath.Join(c.Context, "Dockerfile"), []byte("ok"), 0o644); err != nil {
			t.Fatal(err)
		}
		c.Context, c.DockerfileData, c.Dockerfile = link, nil, filepath.Join(link, "Dockerfile")
	})
	if err != nil || len(said) != 1 {
		t.Error(said, err)
	}
}
