package step

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// endTime is how long processes that were killed are waited for. They go as soon
// as the kernel gets to them; what is there longer is none of them.
const endTime = time.Second

// waitOrphans waits until no process is left of the PID namespaces whose process
// 1 has ended. Linux does that before it reports the end of process 1; gVisor
// kills the others with it but does not wait (its kernel/task_exit.go), and one
// that is still in a system call could write into what is a finished layer then.
//
// Such processes have no parent any more. /proc/N/ns must not be asked instead:
// gVisor panics where it is read of a process that is just ending.
func waitOrphans() error {
	pause := 200 * time.Microsecond
	for end := time.Now().Add(endTime); time.Now().Before(end); pause = min(2*pause, 20*time.Millisecond) {
		n, err := orphans()
		if err != nil {
			return fmt.Errorf("wait for the end of the command: %w", err)
		}
		if n == 0 {
			return nil
		}
		time.Sleep(pause)
	}
	// Started from outside, as a look into a pod is.
	return nil
}

// orphans counts the processes without a parent, but for the first one and the
// executor.
func orphans() (n int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err == nil && isOrphan(stat) {
			n++
		}
	}
	return n, nil
}

// isOrphan says whether /proc/N/stat is that of a process that lives and has no
// parent. The second field, a name in parentheses, may hold anything.
func isOrphan(stat []byte) bool {
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	if !ok {
		return false
	}
	f := bytes.Fields(rest)
	return len(f) > 1 && f[0][0] != 'Z' && f[0][0] != 'X' && string(f[1]) == "0"
}
