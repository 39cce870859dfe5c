package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nobody is the user that the sandbox's processes are on the host when the
// launcher is root.
const nobody = 65534

// mode is how the sandbox gets away from the launcher's own rights.
type mode int

const (
	// modeUser: runsc starts as uid 0 of a new user namespace with one id in
	// it, the caller's own. No setuid helper, no subordinate ids.
	modeUser mode = iota
	// modeRoot: runsc starts as root, and sentry and gofer become nobody in
	// user namespaces of their own.
	modeRoot
)

// currentMode looks at the launcher itself.
func currentMode() (mode, error) {
	if os.Geteuid() != 0 {
		return modeUser, nil
	}
	admin, err := hasSysAdmin()
	if err != nil {
		return 0, err
	}
	ids, err := mappedIDs("/proc/self/uid_map")
	if err != nil {
		return 0, err
	}
	if !admin || ids <= nobody {
		return modeUser, nil // root of a container
	}
	return modeRoot, nil
}

func hasSysAdmin() (bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0, nil
}

// mappedIDs counts the ids that exist in this user namespace, from 0 on.
func mappedIDs(file string) (uint64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("read own user namespace: %w", err)
	}
	defer f.Close()
	var next uint64
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 {
			return 0, fmt.Errorf("%s: unexpected line %q", file, s.Text())
		}
		from, err1 := strconv.ParseUint(fields[0], 10, 64)
		size, err2 := strconv.ParseUint(fields[2], 10, 64)
		if err1 != nil || err2 != nil {
			return 0, fmt.Errorf("%s: unexpected line %q", file, s.Text())
		}
		if from <= next && from+size > next {
			next = from + size
		}
	}
	return next, nil
}

// nobodyMap makes uid 0 of the sandbox the host's nobody. The host's other ids
// are mapped above it so that the gofer's CAP_DAC_READ_SEARCH, which counts in
// its user namespace only, holds for them: root can build a context that only
// root can read. Neither process has CAP_SETUID, so nothing can become them.
func nobodyMap() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: nobody, Size: 1},
		{ContainerID: 1, HostID: 0, Size: nobody},
	}
}
