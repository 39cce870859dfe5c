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
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// benchCase is a build that somebody waits for every day.
type benchCase struct {
	name, what string
	goals      goals
	dockerfile string // FROM names bases of allBases with the tag 1
	context    func(ctx context.Context, dir string) error
	changed    string // the file of the context that mode changed changes; empty: there is none
	scale      string // what it grows in; empty: it is compared with buildah
	together   int    // so many builds at once; 0: one
	flags      []string
	comment    string // what makes a line of it a comment; empty: its first byte is changed
}

var allCases = []benchCase{
	{
		name: "A", what: "Go: gofmt, vet, build, COPY --from, useradd", goals: goals{cold: 0.85, present: 0.7, changedOverSteps: true},
		dockerfile: `FROM debian-golang:1 AS build
ENV CGO_ENABLED=0 GOFLAGS=-mod=mod GOPROXY=off GOCACHE=/gocache
WORKDIR /src
COPY . .
RUN test -z "$(gofmt -l .)"
RUN go vet ./...
RUN mkdir /out && go build -o /out/ ./...
FROM debian:1
RUN useradd --create-home app
COPY --from=build /out/ /usr/local/bin/
USER app
`, context: goSource, changed: "service7/service7.go", comment: "//",
	},
	{
		name: "B", what: "20 RUN on a large base", goals: goals{cold: 0.45, present: 0.2},
		dockerfile: "FROM golang:1\n" + manyRuns(20), context: noContext,
	},
	{
		name: "C", what: "COPY, chown, delete: 20,000 files", goals: goals{cold: 0.5, present: 0.4},
		dockerfile: `FROM debian:1
WORKDIR /app
COPY app/ .
RUN chown -R 1000:1000 /app
RUN find . -name 'f1*.js' -delete && touch done
`, context: smallFiles, changed: "app/d57/f5700.js", comment: "//",
	},
	{
		name: "D", what: "dpkg of 105 packages, gcc", goals: goals{cold: 1.1},
		dockerfile: `FROM debian:1
ENV DEBIAN_FRONTEND=noninteractive
COPY debs/ /debs/
RUN dpkg --force-all --unpack /debs/*.deb
RUN dpkg --configure -a
COPY hello.c /
RUN gcc -O2 -o /hello /hello.c && /hello
`, context: debs, changed: "hello.c", comment: "//",
	},
	{
		name: "G", what: "COPY of 1 GB, sha256sum", goals: goals{cold: 0.6},
		dockerfile: `FROM debian:1
COPY big /big
RUN sha256sum /big > /sum
`, context: bigFile, changed: "big",
	},
}

func manyRuns(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "RUN echo %d > /f%d\n", i+1, i+1)
	}
	return s.String()
}

var fromLine = regexp.MustCompile(`(?m)^FROM (\S+):1\b`)

// bases are the names of the images that a case begins with.
func (c benchCase) bases() (names []string) {
	for _, m := range fromLine.FindAllStringSubmatch(c.dockerfile, -1) {
		names = append(names, m[1])
	}
	return names
}

// prepare pushes the case's base images and writes its context to dir.
func (b *bench) prepare(ctx context.Context, c benchCase, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, base := range c.bases() {
		make, ok := allBases[base]
		if !ok {
			make = func(ctx context.Context) (v1.Image, error) { return scaleBase(ctx, base) }
		}
		img, err := make(ctx)
		if err != nil {
			return err
		}
		if err := b.registry.Push(ctx, img, "library/"+base+":1"); err != nil {
			return err
		}
	}
	file := fromLine.ReplaceAllString(c.dockerfile, "FROM "+b.base("$1"))
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		return err
	}
	return c.context(ctx, dir)
}

// base is where the registry has a base image.
func (b *bench) base(name string) string { return b.registry.Host + "/library/" + name + ":1" }

// change changes the case's one file, to what it has not been before.
func (c benchCase) change(dir string, n int) error {
	file, err := os.OpenFile(filepath.Join(dir, c.changed), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if c.comment == "" {
		_, err = file.WriteAt([]byte{byte(n)}, 0)
		return err
	}
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "\n%s Change %d.\n", c.comment, n)
	return err
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

const helloSource = `#include <stdio.h>
int main(void) { puts("hello"); }
`

// debs puts build-essential, git, curl and all that they depend on (105 packages
// of Debian 12) into dir, and a program to compile; apt fetches the packages
// once, in a directory with the debian image, and they are kept.
func debs(ctx context.Context, dir string) error {
	kept, err := keptDebs(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "hello.c"), []byte(helloSource), 0o644); err != nil {
		return err
	}
	return exec.CommandContext(ctx, "cp", "-r", kept, filepath.Join(dir, "debs")).Run()
}

func keptDebs(ctx context.Context) (string, error) {
	cache, err := rig.Cache()
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, "debs")
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	return kept, inDebian(ctx, kept, `mkdir "$root/debs"
chroot "$root" sh -c 'cd /debs && apt-get download -q -o APT::Sandbox::User=root $(apt-cache depends --recurse --no-recommends \
  --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances build-essential git curl | grep "^[a-z0-9]" | sort -u)'
mv "$root/debs" "$out"`)
}
