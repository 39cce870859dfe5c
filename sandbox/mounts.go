package sandbox

import (
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Where things are inside.
const (
	guestExecutor   = "/kbuild-executor"
	guestContext    = "/context"
	guestIn         = "/in"
	guestWork       = "/w"
	guestStore      = "/store"
	guestCaches     = "/caches"
	guestDockerfile = "/in/Dockerfile"
	guestIgnore     = "/in/dockerignore"
)

// home are the host paths of one run, all below its own directory.
type home struct {
	dir     string
	archive string // a context that came on standard input
	rootfs  string // read-only root of the sandboxes
	store   string // see store
}

func homeOf(dir string) home {
	return home{
		dir:     dir,
		archive: filepath.Join(dir, "context.tar"),
		rootfs:  filepath.Join(dir, "rootfs"),
		store:   filepath.Join(dir, "store"),
	}
}

// roles are all roles, in the order of the flow.
var roles = []request.Role{request.RoleFetch, request.RoleBuild, request.RolePush}

// of returns the paths of one role's sandbox. The names are short because a
// Unix socket's path below state is limited to 107 bytes.
func (h home) of(role request.Role) layout {
	dir := filepath.Join(h.dir, string(role[:1]))
	return layout{
		home: h, role: role,
		bundle: dir,
		in:     filepath.Join(dir, "in"),
		work:   filepath.Join(dir, "w"),
		state:  filepath.Join(dir, "r"),
		log:    filepath.Join(dir, "log"),
		panics: filepath.Join(dir, "panic"),
	}
}

// layout are the host paths of one role's sandbox.
type layout struct {
	home
	role   request.Role
	bundle string // holds config.json
	in     string // becomes /in
	work   string // holds the one file behind /w
	state  string // runsc's --root
	log    string // runsc's error reports
	panics string // the sentry's crash report
}

// containerID names the container below its own state directory.
const containerID = "b"

// settings are what runsc's flags depend on.
func (l layout) settings(c Config, m mode) runsc.Settings {
	s := runsc.Settings{
		Root: l.state, Log: l.log, PanicLog: l.panics, DirectFS: c.directFS(m), NoSUID: c.NoSUID,
		NoNetwork: c.Network.none(l.role),
	}
	if c.DebugDir != "" {
		s.DebugDir = filepath.Join(c.DebugDir, string(l.role))
	}
	return s
}

// directFS: a gofer beside a network needs a second id, which an ordinary user's
// namespace does not have (rule R12).
func (c Config) directFS(m mode) bool { return c.DirectFS || m == modeUser }

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
	if c.Request.Store != "" {
		list = append(list, readOnly(guestStore, l.store))
	}
	list = append(list, layerMounts(c)...)
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
