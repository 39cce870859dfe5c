package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Capabilities that gVisor's processes may keep. They count in the user
// namespace of the process only, which holds no resource of the host: the
// network namespace is not its own, so CAP_NET_RAW opens no raw socket.
const (
	sentryCaps = 1 << unix.CAP_SYS_PTRACE
	goferCaps  = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
		1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_SYS_CHROOT
)

// outside measures gVisor's processes and checks that they are behind the walls
// that gVisor promises.
func (w walls) outside() (out request.Outside, err error) {
	procs, err := runsc.Below(w.pid, w.state)
	if err != nil {
		return out, &WallError{Wall: "gVisor", Msg: "cannot look at its processes", Err: err}
	}
	count := map[runsc.Role]int{}
	for _, role := range []runsc.Role{runsc.RoleSentry, runsc.RoleGofer} {
		for _, p := range procs {
			if p.Role != role {
				continue
			}
			count[role]++
			h, err := w.process(p)
			if err != nil {
				return out, err
			}
			out.Processes = append(out.Processes, h.HostProcess)
		}
	}
	if count[runsc.RoleSentry] != 1 || count[runsc.RoleGofer] != 1 {
		return out, &WallError{Wall: "gVisor", Msg: fmt.Sprintf("%d sentry and %d gofer processes instead of one each",
			count[runsc.RoleSentry], count[runsc.RoleGofer])}
	}
	if err := w.verifyState(); err != nil {
		return out, err
	}
	if err := w.hold.verify(procs); err != nil {
		return out, err
	}
	out.GVisor, out.Limits = w.gvisor, w.hold != nil
	for _, f := range w.flags {
		if !filepath.IsAbs(f.Value) {
			out.Flags = append(out.Flags, f.Name+"="+f.Value)
		}
	}
	return out, nil
}

// process measures and checks one process, and of the sentry the program, its
// flags and what it has started.
func (w walls) process(p runsc.Process) (*hostProcess, error) {
	h, err := measureProcess(p)
	if err != nil {
		return nil, &WallError{Wall: "gVisor", Msg: fmt.Sprintf("cannot look at its %s process", p.Role), Err: err}
	}
	if p.Role != runsc.RoleSentry {
		return h, w.verifyProcess(h)
	}
	if err := verifyFlags(h.args, w.flags); err != nil {
		return h, err
	}
	if err := w.verifyProcess(h); err != nil {
		return h, err
	}
	// Its program is run here only now: this is a process of ours.
	v, err := runsc.VersionOf(context.Background(), p)
	switch {
	case err != nil:
		return h, &WallError{Wall: "gVisor", Msg: "the sentry's program does not tell its version", Err: err}
	case v.Text != w.gvisor:
		return h, &WallError{Wall: "gVisor", Msg: fmt.Sprintf("the sentry is version %.80q, %q was found", v.Text, w.gvisor), Hint: doctorHint}
	}
	return h, w.verifyStubs(h)
}

// verifyStubs checks the processes in which the sandbox's programs run: they are
// the sentry's children and have no more than it has.
func (w walls) verifyStubs(sentry *hostProcess) error {
	pids, err := sentry.children()
	if err != nil {
		return &WallError{Wall: "gVisor", Msg: "cannot look at its stub processes", Err: err}
	}
	for _, pid := range pids {
		stub, err := measureProcess(runsc.Process{PID: pid, Role: "stub"})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return &WallError{Wall: "gVisor", Msg: "cannot look at its stub processes", Err: err}
		}
		if err := w.verifyProcess(stub); err != nil {
			return err
		}
	}
	return nil
}

// verifyState: who can reach the control socket rules the sandbox (rule R22).
func (w walls) verifyState() error {
	info, err := os.Stat(w.dir)
	if err != nil {
		return &WallError{Wall: "state directory", Msg: "cannot be read", Err: err}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm() != 0o700 || int(st.Uid) != os.Geteuid() {
		return &WallError{Wall: "state directory", Msg: fmt.Sprintf("others than the launcher can reach %s", w.dir)}
	}
	return nil
}

// verifyProcess checks that gVisor has put one of its processes behind the walls
// that it promises.
func (w walls) verifyProcess(h *hostProcess) error {
	caps := uint64(sentryCaps)
	switch {
	case runsc.Role(h.Role) == runsc.RoleGofer:
		caps = goferCaps
	case w.directfs:
		caps |= goferCaps &^ (1 << unix.CAP_SYS_CHROOT)
	}
	uid, gid := w.uid()
	for _, status := range h.threads {
		if err := verifyStatus(h.Role, status, caps); err != nil {
			return err
		}
		if err := verifyUser(h.Role, status, uid, gid); err != nil {
			return err
		}
	}
	for _, name := range namespaceNames() {
		if !slices.Contains(h.Namespaces, name) {
			return wall(h.Role, name+" namespace", "is the launcher's own")
		}
	}
	for _, m := range h.Mounts {
		if m.Writable {
			return wall(h.Role, "mounts", fmt.Sprintf("are not read-only: %s", m.Target))
		}
	}
	if runsc.Role(h.Role) != runsc.RoleGofer {
		if len(h.Mounts) != 1 || len(h.Root) > 2 {
			return wall(h.Role, "root directory", fmt.Sprintf("is not empty: it has %q and %d mounts", h.Root, len(h.Mounts)))
		}
	}
	return w.verifyFiles(h)
}

// verifyFiles: what is open for writing of the host's files is the run's own
// reports and workspace, and the sentry has no directory of the host.
func (w walls) verifyFiles(h *hostProcess) error {
	for _, f := range h.open {
		switch f.kind() {
		case "file, writable":
			if !w.own(f) {
				return wall(h.Role, "open files", fmt.Sprintf("have %.200q, writable", f.name))
			}
		case "directory":
			if runsc.Role(h.Role) != runsc.RoleGofer && !w.directfs {
				return wall(h.Role, "open files", fmt.Sprintf("have the directory %.200q", f.name))
			}
		}
		if strings.HasPrefix(f.name, "/dev/") && f.name != "/dev/null" {
			return wall(h.Role, "open files", fmt.Sprintf("have the device %.200q", f.name))
		}
	}
	return nil
}

// verifyUser checks who a thread is: real, effective, saved and file system ids.
func verifyUser(role string, status map[string]string, uid, gid int) error {
	for field, want := range map[string]int{"Uid": uid, "Gid": gid} {
		ids := strings.Fields(status[field])
		for _, id := range ids {
			if id != strconv.Itoa(want) {
				return wall(role, "host uid", fmt.Sprintf("has %s %s instead of %d", field, id, want))
			}
		}
		if len(ids) != 4 {
			return wall(role, "host uid", "cannot be read")
		}
	}
	return nil
}

// verifyStatus checks one thread's /proc status.
func verifyStatus(role string, status map[string]string, caps uint64) error {
	if status["Seccomp"] != "2" {
		return wall(role, "seccomp", fmt.Sprintf("is %q instead of 2", status["Seccomp"]))
	}
	if status["NoNewPrivs"] != "1" {
		return wall(role, "no_new_privs", fmt.Sprintf("is %q instead of 1", status["NoNewPrivs"]))
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		have, err := strconv.ParseUint(status[set], 16, 64)
		if err != nil || have&^caps != 0 {
			return wall(role, "capabilities", fmt.Sprintf("%s is %q, at most %x is allowed", set, status[set], caps))
		}
	}
	return nil
}

func wall(role, name, msg string) *WallError {
	return &WallError{Wall: name, Msg: fmt.Sprintf("that of gVisor's %s process %s", role, msg), Hint: doctorHint}
}

// verifyFlags checks that the sentry was started with the flags that were given
// to runsc, each once: a program between the two may have changed them.
func verifyFlags(args []string, want runsc.Flags) error {
	given := map[string]string{}
	for _, a := range args[1:] {
		name, value, ok := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		if !ok || !strings.HasPrefix(a, "--") {
			break // the command; what follows are its own flags
		}
		if _, twice := given[name]; twice {
			return wall("sentry", "flags", "have "+name+" twice")
		}
		given[name] = value
	}
	for _, f := range want {
		if value, ok := given[f.Name]; !ok || value != f.Value {
			return wall("sentry", "flags", fmt.Sprintf("have %s=%.80q instead of %q", f.Name, value, f.Value))
		}
		delete(given, f.Name)
	}
	for _, own := range []string{"log-fd", "panic-log-fd", "debug-log-fd", "user-log-fd"} {
		delete(given, own) // runsc's own, where its reports go
	}
	for name := range given {
		return wall("sentry", "flags", fmt.Sprintf("have --%.80s, which was not given", name))
	}
	return nil
}

// own tells whether a file is the launcher's for this run.
func (w walls) own(f openFile) bool {
	files := slices.Clone(w.files)
	for _, dir := range []string{w.work, w.debug} {
		// One of them is not there, or cannot be read: then it has no such file.
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return slices.ContainsFunc(files, func(name string) bool {
		info, err := os.Lstat(name)
		return err == nil && os.SameFile(info, f.info)
	})
}
