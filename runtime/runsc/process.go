package runsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Role says which of gVisor's processes one is.
type Role string

// The processes of a sandbox, by the name that gVisor gives them.
const (
	RoleRun    Role = "run"    // waits for the others
	RoleSentry Role = "sentry" // the kernel that the build sees
	RoleGofer  Role = "gofer"  // opens the files of the read-only mounts
)

// Process is one process of a sandbox.
type Process struct {
	PID  int
	Role Role
}

// Below lists the processes of the sandbox whose --root flag is root and which
// the process pid has started, and that one itself. What others call themselves
// does not count.
func Below(pid int, root string) ([]Process, error) {
	list, err := Processes(root)
	return slices.DeleteFunc(list, func(p Process) bool { return !descends(p.PID, pid) }), err
}

// deepest is how far below the process that was started gVisor's own are.
const deepest = 4

func descends(pid, from int) bool {
	for range deepest {
		if pid == from {
			return true
		}
		parent, err := strconv.Atoi(status(pid)["PPid"])
		if err != nil {
			return false
		}
		pid = parent
	}
	return false
}

// status reads /proc/PID/status; of a process that is gone it is empty.
func status(pid int) map[string]string {
	fields := map[string]string{}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return fields
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// Processes lists the processes whose --root flag is root. That directory is
// one sandbox's alone, so these are its processes. Anybody can say the same of
// their own processes, which are left out: a launcher that is not root has its
// sandboxes as its own user, root has them as nobody.
func Processes(root string) ([]Process, error) {
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Process
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if role, ok := belongs(pid, root); ok {
			found = append(found, Process{PID: pid, Role: role})
		}
	}
	return found, nil
}

// belongs reads the command line, which survives until the process is gone; a
// zombie's is empty.
func belongs(pid int, root string) (Role, bool) {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(line) == 0 {
		return "", false
	}
	args := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
	if !slices.Contains(args, "--root="+root) {
		return "", false
	}
	if !ours(pid) {
		return "", false
	}
	switch args[0] {
	case "runsc-sandbox":
		return RoleSentry, true
	case "runsc-gofer":
		return RoleGofer, true
	}
	return RoleRun, true
}

// nobody is who root's sandboxes are on the host.
const nobody = 65534

// ours tells whether a process has no user id but those of our sandboxes.
func ours(pid int) bool {
	ids := strings.Fields(status(pid)["Uid"])
	for _, text := range ids {
		id, err := strconv.Atoi(text)
		if err != nil || id != os.Geteuid() && (os.Geteuid() != 0 || id != nobody) {
			return false
		}
	}
	return len(ids) > 0
}

// errStillThere is the end of a wait that was not long enough.
var errStillThere = errors.New("still there after SIGKILL")

// Kill ends every process of the sandbox whose --root flag is root, and
// returns when none is left. The sentry goes first, so that runsc, if it lives,
// reaps it and cleans up after it.
func Kill(ctx context.Context, root string) error {
	const patience = 300 * time.Millisecond
	start := time.Now()
	for {
		procs, err := Processes(root)
		if err != nil {
			return err
		}
		if len(procs) == 0 {
			return nil
		}
		all := time.Since(start) > patience || !slices.ContainsFunc(procs, isRun)
		for _, p := range procs {
			if all || p.Role == RoleSentry {
				kill(p.PID, root)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d (%s): %w", procs[0].PID, procs[0].Role, errStillThere)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func isRun(p Process) bool { return p.Role == RoleRun }

// kill sends SIGKILL through a process descriptor that was checked after it was
// opened, so that a number that was taken again in between is left alone.
func kill(pid int, root string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if _, ok := belongs(pid, root); ok {
		// An error means that it is gone.
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
