package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
)

// Capabilities that gVisor's processes may keep. They count in the user
// namespace of the process only, which holds no resource of the host: the
// network namespace is not its own, so CAP_NET_RAW opens no raw socket.
const (
	sentryCaps = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_PTRACE
	goferCaps  = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
		1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_SYS_CHROOT
)

// verifyHost checks from outside, once the executor runs, that gVisor has put
// its own processes behind the walls that it promises: another user namespace,
// an ordinary uid, no new privileges, few capabilities, and a seccomp filter on
// every thread.
func verifyHost(state string, m mode, directfs bool) error {
	procs, err := runsc.Processes(state)
	if err != nil {
		return &WallError{Wall: "gVisor", Msg: "cannot look at its processes", Err: err}
	}
	uid := os.Geteuid()
	if m == modeRoot {
		uid = nobody
	}
	count := map[runsc.Role]int{}
	for _, p := range procs {
		count[p.Role]++
		caps := uint64(sentryCaps)
		if directfs {
			caps |= goferCaps &^ (1 << unix.CAP_SYS_CHROOT)
		}
		switch p.Role {
		case runsc.RoleGofer:
			caps = goferCaps
		case runsc.RoleRun:
			continue
		}
		if err := verifyProcess(p, uid, caps); err != nil {
			return err
		}
	}
	if count[runsc.RoleSentry] != 1 || count[runsc.RoleGofer] < 1 {
		return &WallError{Wall: "gVisor", Msg: fmt.Sprintf("%d sentry and %d gofer processes instead of one each",
			count[runsc.RoleSentry], count[runsc.RoleGofer])}
	}
	return nil
}

func verifyProcess(p runsc.Process, uid int, caps uint64) error {
	dir := filepath.Join("/proc", strconv.Itoa(p.PID))
	own, err1 := os.Readlink("/proc/self/ns/user")
	theirs, err2 := os.Readlink(filepath.Join(dir, "ns/user"))
	switch {
	case err1 != nil || err2 != nil:
		return wall(p, "user namespace", "cannot be read")
	case own == theirs:
		return wall(p, "user namespace", "is the launcher's own")
	}
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil || len(threads) == 0 {
		return wall(p, "seccomp", "cannot be read")
	}
	for _, t := range threads {
		status, err := readStatus(filepath.Join(dir, "task", t.Name(), "status"))
		if os.IsNotExist(err) {
			continue // a thread that has just ended
		}
		if err != nil {
			return wall(p, "seccomp", "cannot be read")
		}
		if err := verifyStatus(p, status, uid, caps); err != nil {
			return err
		}
	}
	return nil
}

// verifyStatus checks one thread's /proc status.
func verifyStatus(p runsc.Process, status map[string]string, uid int, caps uint64) error {
	for _, id := range strings.Fields(status["Uid"]) {
		if id != strconv.Itoa(uid) {
			return wall(p, "host uid", fmt.Sprintf("is %s instead of %d", id, uid))
		}
	}
	if status["Uid"] == "" || status["Seccomp"] != "2" {
		return wall(p, "seccomp", fmt.Sprintf("is %q instead of 2", status["Seccomp"]))
	}
	if status["NoNewPrivs"] != "1" {
		return wall(p, "no_new_privs", fmt.Sprintf("is %q instead of 1", status["NoNewPrivs"]))
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		have, err := strconv.ParseUint(status[set], 16, 64)
		if err != nil || have&^caps != 0 {
			return wall(p, "capabilities", fmt.Sprintf("%s is %q, at most %x is allowed", set, status[set], caps))
		}
	}
	return nil
}

func wall(p runsc.Process, name, msg string) *WallError {
	return &WallError{Wall: name, Msg: fmt.Sprintf("that of gVisor's %s process %s", p.Role, msg), Hint: doctorHint}
}

// readStatus reads a /proc/.../status file.
func readStatus(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), ":")
		out[name] = strings.TrimSpace(value)
	}
	return out, s.Err()
}

// verifyPosture checks what the executor measured inside.
func verifyPosture(p request.Posture) error {
	switch {
	case !p.GVisor:
		return &WallError{Wall: "gVisor", Msg: fmt.Sprintf("the executor finds the kernel %.80q", p.Kernel), Hint: doctorHint}
	case p.Seccomp != 2:
		return &WallError{Wall: "seccomp", Msg: fmt.Sprintf("it is %d inside instead of 2", p.Seccomp), Hint: doctorHint}
	}
	return nil
}
