package sandbox

import (
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Where things are inside.
const (
	guestExecutor   = "/kbuild-executor"
	guestContext    = "/context"
	guestIn         = "/in"
	guestWork       = "/w"
	guestCaches     = "/caches"
	guestDockerfile = "/in/Dockerfile"
	guestIgnore     = "/in/dockerignore"
)

// layout are the host paths of one run, all below its own directory. The names
// are short because a Unix socket's path below state is limited to 107 bytes.
type layout struct {
	dir     string // the run's own directory
	archive string // a context that came on standard input
	rootfs  string // read-only root of the sandbox
	in      string // becomes /in
	work    string // holds the one file behind /w
	state   string // runsc's --root
	log     string // runsc's error reports
	panics  string // the sentry's crash report
}

func layoutOf(dir string) layout {
	return layout{
		dir:     dir,
		archive: filepath.Join(dir, "context.tar"),
		rootfs:  filepath.Join(dir, "rootfs"),
		in:      filepath.Join(dir, "in"),
		work:    filepath.Join(dir, "w"),
		state:   filepath.Join(dir, "r"),
		log:     filepath.Join(dir, "log"),
		panics:  filepath.Join(dir, "panic"),
	}
}

// containerID names the container below its own state directory.
const containerID = "b"

// settings are what runsc's flags depend on.
func (l layout) settings(c Config) runsc.Settings {
	return runsc.Settings{
		Root: l.state, Log: l.log, PanicLog: l.panics, DebugDir: c.DebugDir, DirectFS: c.DirectFS, NoSUID: c.NoSUID,
	}
}

// mounts returns all mounts of the sandbox. Nothing of the host is writable:
// /w looks like a bind mount, but the annotations below make it a file system
// of the sentry's own.
func mounts(c Config, l layout) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=64m"}},
		readOnly(guestExecutor, c.Executor),
		readOnly(guestIn, l.in),
	}
	list = append(list, contextMounts(c, l)...)
	list = append(list, specs.Mount{Destination: guestWork, Type: "bind", Source: l.work, Options: []string{"rw"}})
	if c.Caches.Dir != "" {
		list = append(list, readOnly(guestCaches, c.Caches.mounts()))
	}
	return list
}

func readOnly(dst, src string) specs.Mount {
	return specs.Mount{Destination: dst, Type: "bind", Source: src, Options: []string{"ro", "nosuid", "nodev"}}
}

// workspace is the annotations that turn the mount of l.work into a tmpfs of
// the sentry whose pages lie in one sparse file in that directory, and which
// says "no space left on device" at quota bytes.
func workspace(l layout, quota int64) map[string]string {
	const hint = "dev.gvisor.spec.mount.w."
	return map[string]string{
		hint + "source":  l.work,
		hint + "type":    "tmpfs",
		hint + "share":   "container",
		hint + "options": "rw,size=" + strconv.FormatInt(quota, 10),
	}
}
