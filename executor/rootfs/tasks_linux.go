package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tasks bounds the number of processes and threads of all RUN steps together.
// It is a group of gVisor's own pids controller (rule R13: of the limits of
// control groups that one is enforced inside; RLIMIT_NPROC is not). No command
// sees it: nothing of it stays mounted.
type Tasks struct{ procs *os.File }

// tasksName is the name of the group.
const tasksName = "run"

// NewTasks makes the group. It mounts and unmounts below dir, a directory that
// it may remove.
func NewTasks(dir string, most int64) (_ *Tasks, err error) {
	if err := unix.Mount("tasks", dir, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "pids"); err != nil {
		return nil, fmt.Errorf("limit the processes of RUN: mount cgroup: %w", err)
	}
	defer func() {
		// The open file keeps the group.
		if e := unix.Unmount(dir, unix.MNT_DETACH); e != nil {
			err = errors.Join(err, fmt.Errorf("limit the processes of RUN: unmount cgroup: %w", e))
		}
	}()
	group := filepath.Join(dir, tasksName)
	if err := os.Mkdir(group, 0o755); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("limit the processes of RUN: %w", err)
	}
	if err := os.WriteFile(filepath.Join(group, "pids.max"), strconv.AppendInt(nil, most, 10), 0); err != nil {
		return nil, fmt.Errorf("limit the processes of RUN: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("limit the processes of RUN: %w", err)
	}
	return &Tasks{f}, nil
}

// joinTime bounds how long a process that is just making a thread is waited for.
const joinTime = 5 * time.Second

// Add puts a process into the group, with all that it will start.
func (t *Tasks) Add(pid int) error {
	for end := time.Now().Add(joinTime); ; time.Sleep(100 * time.Microsecond) {
		_, err := t.procs.WriteAt(strconv.AppendInt(nil, int64(pid), 10), 0)
		if err == nil {
			return nil
		}
		// A thread that is just beginning cannot be moved (gVisor, pids.go).
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return fmt.Errorf("limit the processes of the command: %w", err)
		}
	}
}

// Close lets the group go; what is in it stays bounded.
func (t *Tasks) Close() error { return t.procs.Close() }
