package step

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Posture measures the walls around the calling process.
func Posture() (request.Posture, error) {
	var p request.Posture
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return p, fmt.Errorf("measure posture: uname: %w", err)
	}
	p.Kernel = unix.ByteSliceToString(u.Release[:])
	p.GVisor = inGVisor()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return p, fmt.Errorf("measure posture: %w", err)
	}
	for line := range bytes.Lines(status) {
		if v, ok := strings.CutPrefix(string(line), "Seccomp:"); ok {
			if p.Seccomp, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return p, fmt.Errorf("measure posture: %w", err)
			}
		}
	}
	p.InUserns, err = inUserns()
	return p, err
}

// inGVisor says whether the kernel is gVisor's. Names and versions can be
// imitated (by a container's environment, uname by a personality); procfs cannot:
// no kernel but gVisor's has /proc/gvisor, nobody can make a directory in procfs,
// and a mount over it would be of another type or show another path.
func inGVisor() bool {
	const procMagic = 0x9fa0
	fd, err := unix.Open("/proc/gvisor", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != procMagic {
		return false
	}
	var proc, dir unix.Stat_t
	if unix.Stat("/proc", &proc) != nil || unix.Fstat(fd, &dir) != nil {
		return false
	}
	return proc.Dev == dir.Dev
}

// inUserns says whether the process is in a user namespace other than the first,
// which has a fixed number: in gVisor 1, in Linux PROC_USER_INIT_INO.
func inUserns() (bool, error) {
	ns, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return false, fmt.Errorf("measure posture: %w", err)
	}
	return ns != "user:[1]" && ns != "user:[4026531837]", nil
}
