package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const twoWeeks = 14 * 24 * time.Hour

// TestCachePlaces: where results of steps come from and go to, beside the cache
// directory. In a pod there is no such directory.
func TestCachePlaces(t *testing.T) {
	repo := func(name string) []request.CachePlace { return []request.CachePlace{{Repository: name}} }
	kept := func(name string, copies, others bool) []request.CacheTarget {
		return []request.CacheTarget{{CachePlace: request.CachePlace{Repository: name}, Copies: copies, Others: others, All: true}}
	}
	ref := func(names ...string) (list []request.CachePlace) {
		for _, n := range names {
			list = append(list, request.CachePlace{Reference: n})
		}
		return list
	}
	to := func(name string, change func(*request.CacheTarget)) []request.CacheTarget {
		c := request.CacheTarget{CachePlace: request.CachePlace{Reference: name}, Copies: true, Others: true}
		if change != nil {
			change(&c)
		}
		return []request.CacheTarget{c}
	}
	for _, tt := range []struct {
		line string
		pod  bool
		from []request.CachePlace
		to   []request.CacheTarget
		ttl  time.Duration
		warn string
		err  string
	}{
		{line: "-t a"},
		{line: "--cache --no-push"},
		{line: "--cache --cache-repo= -t r.example/a:1"},
		{line: "--cache -t r.example/a:1 -t b", from: repo("r.example/a/cache"), to: kept("r.example/a/cache", false, true), ttl: twoWeeks},
		{line: "--cache -t r.example/a:1", pod: true, from: repo("r.example/a/cache"), to: kept("r.example/a/cache", false, true), ttl: twoWeeks},
		{line: "--cache --cache-repo= -t r.example:5000/a", pod: true, from: repo("r.example:5000/a/cache"), to: kept("r.example:5000/a/cache", false, true), ttl: twoWeeks},
		{line: "--cache --cache-repo r.example/c --no-push", from: repo("r.example/c"), to: kept("r.example/c", false, true), ttl: twoWeeks},
		{line: "--cache --cache-repo r.example/c --cache-copy-layers --cache-run-layers=false --cache-ttl=6h -t a", from: repo("r.example/c"), to: kept("r.example/c", true, false), ttl: 6 * time.Hour},
		{line: "--cache --cache-repo r.example/c --no-push-cache -t a", from: repo("r.example/c"), ttl: twoWeeks},
		{line: "--cache --cache-ttl 1h --no-push", ttl: time.Hour},
		{line: "--cache --no-push", pod: true, err: "if using cache with --no-push, specify cache repo with --cache-repo"},
		{line: "--cache --no-push --no-push-cache", pod: true, warn: "--cache has no effect: there is no repository"},
		{line: "--cache --call outline", pod: true},
		{line: "--cache-repo r.example/c -t a", warn: "--cache-repo has no effect: nothing is cached without --cache"},
		{line: "--no-push-cache --cache=false -t a", warn: "--no-push-cache has no effect"},
		{line: "--cache --cache-ttl=0 --no-push", err: "--cache-ttl: 0s: want more than 0"},
		{line: "--cache --cache-repo r.example/c:tag -t a", err: `--cache-repo: "r.example/c:tag": not a repository, without a tag`},
		{line: "--cache --cache-repo https://r.example/c -t a", err: "a repository has no scheme"},
		{line: "--cache --cache-repo r.example/C -t a", err: "not a repository"},

		{line: "-t a --cache-from r.example/a:c --cache-from type=registry,ref=b", from: ref("r.example/a:c", "b")},
		{line: "-t a --cache-from type=registry,ref=r.example/a@sha256:00", from: ref("r.example/a@sha256:00")},
		{line: "-t a --cache-to type=registry,ref=r.example/a:c", to: to("r.example/a:c", nil)},
		{line: "-t a --cache-to ref=a,mode=max,type=registry,ignore-error=false,image-manifest=true,oci-mediatypes=true,compression=gzip", to: to("a", func(c *request.CacheTarget) { c.All, c.Strict = true, true })},
		{line: "-t a --compression=zstd --cache-to type=registry,ref=a,mode=min,compression=zstd,ignore-error=true", to: to("a", nil)},
		{line: "-t a --cache-to type=registry,ref=a,compression=zstd", err: "--cache-to: compression=zstd: cached layers are those of the image"},
		{line: "-t a --cache-to type=registry,ref=a,mode=all", err: "mode=all: want min or max"},
		{line: "-t a --cache-to type=registry,ref=a,oci-mediatypes=false", err: "oci-mediatypes=false: not supported"},
		{line: "-t a --cache-to type=registry,ref=a,force-compression=true", err: "--cache-to: force-compression: not supported"},
		{line: "-t a --cache-to type=registry", err: "ref is missing"},
		{line: "-t a --cache-to type=registry,ref=a@sha256:00", err: "a digest cannot be pushed to"},
		{line: "-t a --cache-to a", err: `--cache-to: "a": want KEY=VALUE`},
		{line: "-t a --cache-from mode=max,type=registry,ref=a", err: "--cache-from: mode: not supported"},
		{line: "-t a --cache-from type=inline", err: "--cache-from: type=inline is not supported"},
		{line: "-t a --cache-from type=gha", err: "type=gha is not supported"},
		{line: "-t a --cache-to type=s3", err: "type=s3 is not supported"},
		{line: "-t a --cache-to type=azblob", err: "type=azblob is not supported"},
		{line: "-t a --cache-to type=x", err: "type=x: unknown"},
		{line: "-t a --cache-from type=local,src=/l", from: []request.CachePlace{{Layout: "/l", Called: "/l"}}},
		{line: "-t a --cache-to type=local,dest=/l,mode=max", to: []request.CacheTarget{{CachePlace: request.CachePlace{Layout: "/l", Called: "/l"}, Copies: true, Others: true, All: true}}},
		{
			line: "--cache --cache-repo oci:/l --no-push", ttl: twoWeeks, from: []request.CachePlace{{Layout: "/l", Called: "/l"}},
			to: []request.CacheTarget{{CachePlace: request.CachePlace{Layout: "/l", Called: "/l"}, Others: true, All: true, Merge: true}},
		},
		{line: "--cache --cache-repo oci: --no-push", err: "--cache-repo: a directory is missing"},
		{line: "-t a --cache-to type=local,dest=Dockerfile", err: "Dockerfile: not a directory"},
		{line: "-t a --cache-to type=local,src=/l", err: "--cache-to: src: not supported"},
		{line: "-t a --cache-from type=local,dest=/l", err: "--cache-from: dest: not supported"},
		{line: "-t a --cache-from type=local,tag=x,src=/l", err: "--cache-from: tag: not supported"},
		{line: "-t a --cache-from type=registry,src=/l", err: "--cache-from: src: not supported"},
		{line: "-t a --cache-from ref=x", err: "type is missing"},
		{line: "-t a --cache-from https://r.example/x", err: "not a reference"},
	} {
		b, r, err := cached(t, tt.line, !tt.pod)
		if tt.err != "" || err != nil {
			if tt.err == "" || err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.line, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.from, r.CacheFrom); d != "" {
			t.Errorf("%s: from (-want +got):\n%s", tt.line, d)
		}
		if d := cmp.Diff(tt.to, r.CacheTo); d != "" {
			t.Errorf("%s: to (-want +got):\n%s", tt.line, d)
		}
		if warned := strings.Join(b.Warnings(), "\n"); r.CacheTTL != tt.ttl || tt.warn == "" && warned != "" || !strings.Contains(warned, tt.warn) {
			t.Errorf("%s: %v, %q", tt.line, r.CacheTTL, warned)
		}
	}
	for line, want := range map[string]string{
		"-t a --cache-from registry.insecure=true,type=registry,ref=r.example/x":                                                                "r.example",
		"-t a --cache-from registry.insecure=false,type=registry,ref=r.example/x":                                                               "",
		"-t a --insecure --cache --cache-repo r.example:5000/x":                                                                                 "r.example:5000",
		"-t a --insecure --cache-from r.example/x":                                                                                              "",
		"-t a --insecure --cache --cache-repo oci:/l":                                                                                           "",
		"-t a --insecure-registry r.example --cache --cache-repo r.example/x --cache-to type=registry,ref=r.example/x:c,registry.insecure=true": "r.example",
	} {
		_, r, err := cached(t, line, true)
		if got := strings.Join(r.Registry.InsecureHosts, " "); err != nil || got != want {
			t.Errorf("%s: by plain HTTP: %q, %v, want %q", line, got, err, want)
		}
	}
}

func cached(t *testing.T, line string, keeps bool) (*Build, request.Build, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch"), 0o644); err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	b := Register(fs)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	r, _, err := b.Request(From{Dir: dir, Context: ".", KeepsSteps: keeps, Env: func(string) (string, bool) { return "", false }})
	return b, r, err
}
