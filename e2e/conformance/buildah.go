package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"

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
	problems := c.judge(out, p, bases)
	if c.Marks.Buildah == "same" {
		return problems
	}
	if len(problems) == 0 {
		return []string{"buildah does the same, and its difference is noted: " + c.Marks.Buildah}
	}
	return nil
}

func (buildah) build(ctx context.Context, c *testCase, p paths) (outcome, error) {
	store := []string{
		"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"), "--storage-driver", "vfs",
	}
	args := append(slices.Clone(store), "bud", "--isolation", "chroot", "--layers", "--tls-verify=false", "--identity-label=false",
		"--format", "docker", "-t", "x", "-f", filepath.Join(p.files, c.Opts.Dockerfile))
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
	out, err = run(exec.CommandContext(ctx, "buildah", append(store, "push", "-q", "--disable-compression=false",
		"--format", "v2s2", "x", "oci:"+p.layout)...), c, p)
	out.log = log + out.log
	return out, err
}
