package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// buildah is Debian's buildah: it knows no classes and no lines, and its layers
// and history are its own. Tree, config and whether a build fails are compared.
type buildah struct{}

// takes are the cases that say how buildah compares.
func (buildah) takes(all []*testCase) []*testCase {
	return slices.DeleteFunc(all, func(c *testCase) bool { return c.Marks.Buildah == "" })
}

// judge wants no difference where none is known, and one where it is.
func (buildah) judge(c *testCase, out outcome, p paths, bases string) []string {
	problems := slices.DeleteFunc(c.judge(out, p, bases), isStub)
	if c.Marks.Buildah == "same" {
		return problems
	}
	if len(problems) == 0 {
		return []string{"buildah does the same, and its difference is noted: " + c.Marks.Buildah}
	}
	return nil
}

// isStub says whether a problem is something that buildah's chroot isolation
// leaves of its own accord.
func isStub(problem string) bool {
	if problem == "tree: not wanted /run dir 0755 0:0" {
		return true
	}
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		if strings.HasPrefix(problem, "tree: not wanted /etc/"+name+" file 0755 0:0 size=0") {
			return true
		}
	}
	return false
}

// build uses one store for all cases, so that a base is pulled once.
func (buildah) build(ctx context.Context, c *testCase, p paths) (outcome, error) {
	at := storeOf(filepath.Dir(p.dir))
	store := []string{"--root", at, "--runroot", at + "-run", "--storage-driver", "overlay"}
	tag := fmt.Sprint("case", c.Number)
	args := append(slices.Clone(store), "bud", "--isolation", "chroot", "--tls-verify=false", "--identity-label=false",
		"--format", "docker", "-t", tag, "-f", filepath.Join(p.files, c.Opts.Dockerfile))
	for k, v := range c.Opts.BuildArgs {
		args = append(args, "--build-arg", k+"="+p.replace.Replace(v))
	}
	if c.Opts.Target != "" {
		args = append(args, "--target", c.Opts.Target)
	}
	args = append(args, filepath.Join(p.files, "context"))
	out, err := run(exec.CommandContext(ctx, "buildah", args...), c, p)
	if err != nil || out.exit != 0 {
		out.failure = &request.Failure{Message: out.log}
		return out, err
	}
	log := out.log
	out, err = run(exec.CommandContext(ctx, "buildah", append(store, "push", "-q", tag, "oci:"+p.layout)...), c, p)
	out.log = log + out.log
	return out, err
}

// storeOf is where buildah keeps images, given the runner's directory.
func storeOf(tmp string) string { return filepath.Join(tmp, "buildah") }

// detach undoes the mount that buildah leaves on its store.
func (buildah) detach(tmp string) {
	_ = unix.Unmount(filepath.Join(storeOf(tmp), "overlay"), unix.MNT_DETACH)
}
