package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// sample is one measured run.
type sample struct {
	wall   time.Duration
	memory int64 // bytes
	disk   int64 // bytes
	began  time.Time
	first  time.Duration // until the first step of the Dockerfile began; 0: unknown
	spent  spent         // nil: there was no trace
}

// median takes the middle of wall times and of memory, each by itself; where the
// time went is that of the run with the middle wall time.
func median(s []sample) sample {
	if len(s) == 0 {
		return sample{}
	}
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b sample) int { return cmp.Compare(a.memory, b.memory) })
	memory := s[len(s)/2].memory
	slices.SortFunc(s, func(a, b sample) int { return cmp.Compare(a.wall, b.wall) })
	middle := s[len(s)/2]
	middle.memory = memory
	return middle
}

// order is one build and push.
type order struct {
	dir, dest string
	flags     []string // of ours
	keep      string   // directory of what the builder keeps between builds; empty: it keeps nothing
}

// builder is one of those that are compared.
type builder struct {
	name  string
	build func(context.Context, order) (sample, error)
	// base brings a base image into keep, and no result of any step of a case.
	base func(ctx context.Context, image, keep string) error
}

func (b *bench) builders(c benchCase) []builder {
	all := []builder{{"ours", b.ours, b.oursBase}, {"buildah", b.buildah, b.buildahBase}}
	if c.scale != "" {
		return all[:1]
	}
	return slices.DeleteFunc(all, func(w builder) bool { return b.only != "" && b.only != w.name })
}

func (b *bench) ours(ctx context.Context, o order) (sample, error) {
	args := []string{"build", "--progress", "plain", "--insecure-registry", b.registry.Host, "--cache", "--cache-repo=", "--cache-dir", o.keep, "-t", o.dest}
	args = append(args, o.flags...)
	trace := filepath.Join(b.tmp, "trace-"+strings.ReplaceAll(o.dest, "/", "-"))
	defer os.Remove(trace)
	if b.traces {
		args = append(args, "--trace", trace)
	}
	s, err := b.timed(exec.CommandContext(ctx, b.launcher(), append(args, o.dir)...))
	if err != nil || !b.traces {
		return s, err
	}
	text, err := os.ReadFile(trace)
	if err == nil {
		var first time.Time
		s.spent, first, err = readTrace(text)
		s.first = max(0, first.Sub(s.began))
	}
	return s, err
}

// oursBase builds on the base alone. The one step makes sure that the base is
// needed as a file system, as in the cases, and it is none of theirs.
func (b *bench) oursBase(ctx context.Context, image, keep string) error {
	dir, err := os.MkdirTemp(b.tmp, "base-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nRUN true\n"), 0o644); err != nil {
		return err
	}
	_, err = b.timed(exec.CommandContext(ctx, b.launcher(), "build", "--progress", "plain",
		"--insecure-registry", b.registry.Host, "--cache-dir", keep, "--no-push", dir))
	return err
}

func (b *bench) launcher() string { return filepath.Join(b.bin, "kbuild-sandbox") }

// hasTrace tells whether the launcher can tell where its time goes.
func (b *bench) hasTrace(ctx context.Context) bool {
	help, err := exec.CommandContext(ctx, b.launcher(), "build", "--help").CombinedOutput()
	return err == nil && bytes.Contains(help, []byte("--trace "))
}

func (b *bench) buildah(ctx context.Context, o order) (sample, error) {
	s, err := b.timed(b.buildahCommand(ctx, o.keep, "bud", "--isolation", "chroot", "--layers", "--tls-verify=false", "-t", o.dest, o.dir))
	if err != nil {
		return s, err
	}
	p, err := b.timed(b.buildahCommand(ctx, o.keep, "push", "--tls-verify=false", o.dest))
	return sample{wall: s.wall + p.wall, memory: max(s.memory, p.memory)}, err
}

func (b *bench) buildahBase(ctx context.Context, image, keep string) error {
	_, err := b.timed(b.buildahCommand(ctx, keep, "pull", "--tls-verify=false", image))
	return err
}

// buildahCommand runs buildah in a mount namespace of its own. So its storage,
// which it leaves mounted on itself, goes with it; and its notes on which blobs
// the registry has, which are at a fixed place, are kept with the storage, where
// they belong: with those of an earlier run it would not push what it has pushed
// then.
func (b *bench) buildahCommand(ctx context.Context, keep string, args ...string) *exec.Cmd {
	const script = `set -e
notes=/var/lib/containers/cache
mkdir -p "$1/notes" "$notes"
mount --bind "$1/notes" "$notes"
shift
exec buildah "$@"`
	store := []string{"-c", script, "sh", keep, "--root", filepath.Join(keep, "root"),
		"--runroot", filepath.Join(keep, "runroot"), "--storage-driver", "overlay"}
	cmd := exec.CommandContext(ctx, "sh", append(store, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// timed runs a command, watches the memory of all its process tree, and looks
// for what it leaves behind.
func (b *bench) timed(cmd *exec.Cmd) (sample, error) {
	tmp, err := os.MkdirTemp(b.tmp, "run-")
	if err != nil {
		return sample{}, err
	}
	defer os.Remove(tmp)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "XDG_CACHE_HOME="+filepath.Join(b.tmp, "cache"))
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	done := make(chan struct{})
	peak := make(chan sample)
	go b.watch(done, peak)
	err = cmd.Wait()
	wall := time.Since(begin)
	close(done)
	s := <-peak
	s.wall, s.began = wall, begin
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w after %s s\n%s", strings.Join(cmd.Args, " "), err, seconds(wall), out.Bytes())
	}
	return s, leftIn(tmp)
}

// leftIn removes what buildah is known to drop into its temporary directory, and
// takes all else for a fault.
func leftIn(tmp string) error {
	for _, d := range []string{"buildah", "containers", "storage"} {
		matches, err := filepath.Glob(filepath.Join(tmp, d+"*"))
		for _, m := range matches {
			err = errors.Join(err, os.RemoveAll(m))
		}
		if err != nil {
			return err
		}
	}
	if left := rig.Files(tmp); len(left) > 0 {
		return fmt.Errorf("left behind: %q", left)
	}
	return nil
}
