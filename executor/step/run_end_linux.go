package step

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// endTime is how long processes that were killed are waited for. They go as soon
// as the kernel gets to them.
const endTime = 10 * time.Second

// pidNamespace names the PID namespace of process pid, or "" if it is gone.
func pidNamespace(pid int) string {
	ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		return ""
	}
	return ns
}

// waitEmpty waits until no process of the PID namespace is left. Linux does
// that before it reports the end of process 1; gVisor kills the others with it
// but does not wait (kernel/task_exit.go), and one that is still in a system
// call could write into what is a finished layer by then.
func waitEmpty(ns string) error {
	if ns == "" {
		return nil // process 1 was gone at once and started nothing
	}
	pause := 200 * time.Microsecond
	for deadline := time.Now().Add(endTime); ; pause = min(2*pause, 50*time.Millisecond) {
		left, err := inNamespace(ns)
		if err != nil {
			return fmt.Errorf("wait for the end of the command: %w", err)
		}
		if !left {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("wait for the end of the command: a process does not die")
		}
		time.Sleep(pause)
	}
}

// inNamespace says whether any process is in the PID namespace.
func inNamespace(ns string) (bool, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err == nil && pidNamespace(pid) == ns {
			return true, nil
		}
	}
	return false, nil
}
