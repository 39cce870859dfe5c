package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// roleCost is what sandboxes of their own for fetch, build and push may cost a
// build, at most.
const roleCost = 500 * time.Millisecond

// sandboxes measures one small build, pull and push included, by the launcher
// with its three sandboxes and gateways, and by the executor alone in one bare
// sandbox with the host's network, as a pod has it.
func (b *bench) sandboxes(ctx context.Context) (string, error) {
	dir := filepath.Join(b.tmp, "case-S")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	img, err := rig.Busybox(ctx)
	if err != nil {
		return "", err
	}
	if err := b.registry.Push(ctx, img, "library/busybox:1"); err != nil {
		return "", err
	}
	file := "FROM " + b.registry.Host + "/library/busybox:1\nRUN echo built > /done\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		return "", err
	}
	var three, one []sample
	for i := range max(b.runs, 5) {
		s, err := b.ours(ctx, order{dir: dir, dest: fmt.Sprintf("%s/bench/three-%d:1", b.registry.Host, i)})
		if err != nil {
			return "", err
		}
		p, err := b.pod(ctx, dir, fmt.Sprintf("%s/bench/one-%d:1", b.registry.Host, i))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(os.Stderr, "S: three %v, one %v\n", s.wall.Round(time.Millisecond), p.wall.Round(time.Millisecond))
		three, one = append(three, s), append(one, p)
	}
	t, o := median(three), median(one)
	return fmt.Sprintf("%-34s %8.2fs %8.2fs %+6.2fs (aim %+.1fs) %d MiB, %d MiB", "S small build: 3 sandboxes, 1 bare",
		t.wall.Seconds(), o.wall.Seconds(), (t.wall - o.wall).Seconds(), roleCost.Seconds(), t.memory>>20, o.memory>>20), nil
}

// pod builds with the executor alone in one sandbox.
func (b *bench) pod(ctx context.Context, dir, dest string) (sample, error) {
	bundle, err := os.MkdirTemp(b.tmp, "pod-")
	if err != nil {
		return sample{}, err
	}
	defer func() {
		// runsc leaves its empty network namespace mounted.
		unix.Unmount(filepath.Join(bundle, "state", "null-netns"), unix.MNT_DETACH)
		os.RemoveAll(bundle)
	}()
	executor, err := filepath.Abs(filepath.Join(b.bin, "kbuild-executor"))
	if err != nil {
		return sample{}, err
	}
	spec := podSpec(executor, dir, "--insecure-registry", b.registry.Host, "--destination", dest)
	text, err := json.Marshal(spec)
	if err != nil {
		return sample{}, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644),
		os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755),
	)
	for _, d := range []string{"proc", "dev", "sys", "tmp", "workspace", "kaniko", "etc"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(bundle, "rootfs", d), 0o755))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(bundle, "rootfs", "kaniko", "executor"), nil, 0o755))
	if err != nil {
		return sample{}, err
	}
	return b.timed(exec.CommandContext(ctx, filepath.Join(b.bin, "runsc"), "--root", filepath.Join(bundle, "state"),
		"--network=host", "--ignore-cgroups", "run", "--bundle", bundle, filepath.Base(bundle)))
}

// podSpec is a container like containerd's, with the executor and its context.
func podSpec(executor, dir string, args ...string) specs.Spec {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	return specs.Spec{
		Version: "1.1.0",
		Process: &specs.Process{
			Args: append([]string{"/kaniko/executor", "--context", "/workspace"}, args...), Cwd: "/", Env: []string{"PATH=/kaniko", "HOME=/"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/kaniko/executor", Type: "bind", Source: executor, Options: []string{"ro"}},
			{Destination: "/workspace", Type: "bind", Source: dir, Options: []string{"ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}}},
	}
}
