package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// benchCase is a build that somebody waits for every day.
type benchCase struct {
	name, what string
	aim        float64 // of buildah's wall time
	base       string  // debian or golang
	dockerfile string  // after FROM
	context    func(ctx context.Context, dir string) error
}

var allCases = []benchCase{
	{"B", "20 RUN on a large base", 0.6, "golang", manyRuns(20), noContext},
	{"C", "COPY, chown, delete: 20,000 files", 1.0, "debian", `WORKDIR /app
COPY app/ .
RUN chown -R 1000:1000 /app
RUN find . -name 'f1*.js' -delete && touch done
`, smallFiles},
	{"D", "dpkg and gcc", 1.3, "debian", `ENV DEBIAN_FRONTEND=noninteractive
COPY debs/ /debs/
RUN dpkg --force-all --unpack /debs/*.deb
RUN dpkg --configure -a
RUN printf '#include <stdio.h>\nint main(void) { puts("hello"); }\n' > /hello.c && gcc -O2 -o /hello /hello.c && /hello
`, debs},
	{"G", "COPY of 1 GB, sha256sum", 0.8, "debian", `COPY big /big
RUN sha256sum /big > /sum
`, bigFile},
}

func manyRuns(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "RUN echo %d > /f%d\n", i+1, i+1)
	}
	return s.String()
}

// prepare pushes the case's base image and writes its context to dir.
func (b *bench) prepare(ctx context.Context, c benchCase, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	img, err := rig.Debian(ctx)
	if c.base == "golang" {
		img, err = golang(ctx)
	}
	if err != nil {
		return err
	}
	if err := b.registry.Push(ctx, img, "library/"+c.base+":1"); err != nil {
		return err
	}
	file := "FROM " + b.registry.Host + "/library/" + c.base + ":1\n" + c.dockerfile
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		return err
	}
	return c.context(ctx, dir)
}

// golang is debian with the Go toolchain that runs this at /usr/local/go.
func golang(ctx context.Context) (v1.Image, error) {
	cache, err := rig.Cache()
	if err != nil {
		return nil, err
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find the Go toolchain: %w", err)
	}
	debian, err := rig.DebianTar(ctx)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cache, "golang-"+runtime.Version()+".tar")
	if _, err := os.Stat(file); err != nil {
		tmp := file + ".new"
		defer os.Remove(tmp)
		script := `cp "$1" "$2" && tar --numeric-owner --owner=0 --group=0 --sort=name --transform 's,^\.,./usr/local/go,' -C "$3" -rf "$2" .`
		if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", debian, tmp, strings.TrimSpace(string(root))).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make golang image: %w: %s", err, out)
		}
		if err := os.Rename(tmp, file); err != nil {
			return nil, err
		}
	}
	return rig.FromTar(file, v1.Config{Env: []string{"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}})
}

func noContext(context.Context, string) error { return nil }

// smallFiles writes 20,000 files of 6.3 kB on average, in 200 directories.
func smallFiles(_ context.Context, dir string) error {
	random := rand.New(rand.NewPCG(1, 2))
	for d := range 200 {
		sub := filepath.Join(dir, "app", fmt.Sprintf("d%d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			var text strings.Builder
			for size := 500 + random.IntN(11700); text.Len() < size; {
				fmt.Fprintf(&text, "export const v%x = require('./f%d.js').call(%q);\n", random.Uint32(), random.IntN(20000), fmt.Sprint(random.Uint64()))
			}
			name := filepath.Join(sub, fmt.Sprintf("f%d.js", d*100+f))
			if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// bigFile writes 1 GB that cannot be compressed.
func bigFile(_ context.Context, dir string) error {
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{1}), 1_000_000_000); err != nil {
		return err
	}
	return w.Flush()
}

// debs puts build-essential, git, curl and all that they depend on (105 packages
// of Debian 12) into dir; apt fetches them once, in a directory with the debian
// image, and they are kept.
func debs(ctx context.Context, dir string) error {
	cache, err := rig.Cache()
	if err != nil {
		return err
	}
	kept := filepath.Join(cache, "debs")
	if _, err := os.Stat(kept); err != nil {
		if err := fetchDebs(ctx, cache, kept); err != nil {
			return err
		}
	}
	return exec.CommandContext(ctx, "cp", "-r", kept, filepath.Join(dir, "debs")).Run()
}

func fetchDebs(ctx context.Context, cache, kept string) error {
	debian, err := rig.DebianTar(ctx)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(cache, "debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	script := `set -e
tar -xf "$1" -C "$2"
cp /etc/resolv.conf "$2/etc/resolv.conf"
opt="-o APT::Sandbox::User=root -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
chroot "$2" apt-get $opt update -q
mkdir "$2/debs"
chroot "$2" sh -c 'cd /debs && apt-get download -q -o APT::Sandbox::User=root $(apt-cache depends --recurse --no-recommends \
  --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances build-essential git curl | grep "^[a-z0-9]" | sort -u)'
mv "$2/debs" "$3"`
	if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", debian, root, kept).CombinedOutput(); err != nil {
		return fmt.Errorf("fetch packages: %w: %s", err, out)
	}
	return nil
}
