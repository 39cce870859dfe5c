package rig

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const pathEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Busybox is an image of one layer: Debian's static busybox with a link for
// each applet, and users root, nobody and app (1000).
func Busybox(ctx context.Context) (v1.Image, error) {
	const file = "/bin/busybox"
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("busybox image: %w (make deps-test installs it)", err)
	}
	applets, err := exec.CommandContext(ctx, file, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox image: %w", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(typ byte, mode int64, name, text string) {
		h := &tar.Header{Typeflag: typ, Mode: mode, Name: name, Format: tar.FormatPAX}
		switch typ {
		case tar.TypeSymlink:
			h.Linkname, text = text, ""
		case tar.TypeReg:
			h.Size = int64(len(text))
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = io.WriteString(w, text)
		}
	}
	for _, d := range []string{"bin", "etc", "home", "proc", "dev", "sys", "usr", "usr/bin", "var"} {
		add(tar.TypeDir, 0o755, d+"/", "")
	}
	add(tar.TypeDir, 0o700, "root/", "")
	add(tar.TypeDir, 0o1777, "tmp/", "")
	add(tar.TypeReg, 0o755, "bin/busybox", string(program))
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			add(tar.TypeSymlink, 0o777, "bin/"+a, "busybox")
		}
	}
	add(tar.TypeReg, 0o644, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n")
	add(tar.TypeReg, 0o644, "etc/group", "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n")
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("busybox image: %w", err)
	}
	return image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil },
		v1.Config{Env: []string{pathEnv}, Cmd: []string{"sh"}})
}

// Debian is an image of one layer: what debootstrap makes of the host's release
// in its smallest variant. It takes a minute and a package mirror the first
// time, and is kept in Cache.
func Debian(ctx context.Context) (v1.Image, error) {
	file, err := DebianTar(ctx)
	if err != nil {
		return nil, fmt.Errorf("debian image: %w", err)
	}
	return FromTar(file, v1.Config{Env: []string{pathEnv}, Cmd: []string{"bash"}})
}

// FromTar is an image of one layer, an uncompressed tar file.
func FromTar(file string, config v1.Config) (v1.Image, error) {
	return image(func() (io.ReadCloser, error) { return os.Open(file) }, config)
}

// Cache is where what takes long to make is kept between runs.
func Cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "kbuild-sandbox-e2e")
	return dir, os.MkdirAll(dir, 0o755)
}

// DebianTar is the tar file that Debian is made of.
func DebianTar(ctx context.Context) (string, error) {
	dir, err := Cache()
	if err != nil {
		return "", err
	}
	suite, mirror := release()
	file := filepath.Join(dir, "debian-"+suite+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	tmp, err := os.MkdirTemp(dir, "debootstrap-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	bootstrap := []string{"debootstrap", "--variant=minbase", suite, root}
	if mirror != "" {
		bootstrap = append(bootstrap, mirror)
	}
	for _, args := range [][]string{
		bootstrap,
		{"tar", "--numeric-owner", "--xattrs", "--sort=name", "--exclude=./dev/*", "--exclude=./var/cache/apt/archives/*.deb",
			"--exclude=./var/lib/apt/lists/*_*", "-C", root, "-cf", filepath.Join(tmp, "tar"), "."},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return file, os.Rename(filepath.Join(tmp, "tar"), file)
}

// release is the host's release and where its own packages come from; empty:
// debootstrap knows.
func release() (suite, mirror string) {
	suite = "stable"
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return suite, ""
	}
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "VERSION_CODENAME" {
			suite = strings.Trim(v, `"`)
		}
	}
	sources, err := exec.Command("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)").Output()
	if err != nil {
		return suite, ""
	}
	for line := range strings.Lines(string(sources)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == suite {
			return suite, f[1]
		}
	}
	return suite, ""
}

func image(open tarball.Opener, config v1.Config) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressedCaching, tarball.WithCompressionLevel(1))
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return mutate.ConfigFile(img, file)
}

// Push puts an image into the registry as name, which is a path with a tag.
func (r *Registry) Push(ctx context.Context, img v1.Image, path string) error {
	ref, err := name.ParseReference(r.Host+"/"+path, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", path, err)
	}
	return nil
}
