package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// podCaps are what containerd gives a container that asks for nothing.
var podCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// podCommand runs the product's image as a pod with `runtimeClassName: gvisor`
// would: pod IMAGE-LAYOUT CONTEXT ARGS...: runsc with a bundle like
// containerd's, the context at /workspace, $SIDE/home/.docker at
// /kaniko/.docker, an emptyDir at /work.
func podCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: pod IMAGE-LAYOUT CONTEXT ARGS...")
	}
	side := ts.Getenv("SIDE")
	bundle := filepath.Join(side, "pod")
	if _, err := os.Stat(bundle); err != nil {
		unpack(ts, "layout:"+args[0], bundle)
	}
	work := filepath.Join(side, "emptydir")
	volume := filepath.Join(side, "volume") // a claim that outlives the pod
	ts.Check(errors.Join(os.MkdirAll(work, 0o777), os.MkdirAll(volume, 0o777)))
	spec := podSpec(append([]string{"/kaniko/executor"}, args[2:]...), []specs.Mount{
		{Destination: "/workspace", Type: "bind", Source: ts.MkAbs(args[1]), Options: []string{"rbind", "ro"}},
		{Destination: "/kaniko/.docker", Type: "bind", Source: filepath.Join(side, "home", ".docker"), Options: []string{"rbind", "ro"}},
		{Destination: "/work", Type: "bind", Source: work, Options: []string{"rbind", "rw"}},
		{Destination: "/cache", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}},
		{Destination: "/etc/resolv.conf", Type: "bind", Source: "/etc/resolv.conf", Options: []string{"rbind", "ro"}},
		{Destination: "/etc/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"rbind", "ro"}},
	})
	// What the shim says of an emptyDir of a pod with one container.
	spec.Annotations = map[string]string{
		"dev.gvisor.spec.mount.work.source": work, "dev.gvisor.spec.mount.work.type": "tmpfs",
		"dev.gvisor.spec.mount.work.share": "container", "dev.gvisor.spec.mount.work.options": "rw",
	}
	b, err := json.Marshal(spec)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o644))
	err = ts.Exec("runsc", "--root", filepath.Join(side, "runsc"), "--network=host", "--ignore-cgroups",
		"run", "--bundle", bundle, "pod-"+strconv.Itoa(os.Getpid())+"-"+filepath.Base(side))
	status := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	ts.Setenv("STATUS", strconv.Itoa(status))
	if left := rig.Files(work); len(left) > 0 {
		ts.Fatalf("left behind in /work: %q", left)
	}
	if (status != 0) != neg {
		ts.Fatalf("the pod ended with status %d", status)
	}
}

func podSpec(args []string, mounts []specs.Mount) *specs.Spec {
	caps := &specs.LinuxCapabilities{Bounding: podCaps, Effective: podCaps, Permitted: podCaps}
	std := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	return &specs.Spec{
		Version: "1.1.0",
		Process: &specs.Process{
			Args: args, Cwd: "/workspace", Capabilities: caps,
			Env: []string{"PATH=/usr/local/bin:/kaniko", "HOME=/root", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
				"DOCKER_CONFIG=/kaniko/.docker/", "KUBERNETES_SERVICE_HOST=10.96.0.1"},
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "build",
		Mounts:   append(std, mounts...),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// detach removes what is mounted below a directory: of a script that failed
// half way.
func detach(dir string) {
	for _, m := range rig.Mounts(dir) {
		unix.Unmount(m, unix.MNT_DETACH) // what cannot be unmounted is found by RemoveAll
	}
}
