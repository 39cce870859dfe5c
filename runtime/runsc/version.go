package runsc

import (
	"context"
	"path/filepath"
	"strconv"
)

// VersionOf is the version of the program that a process of gVisor runs.
func VersionOf(ctx context.Context, p Process) (Version, error) {
	return readVersion(ctx, filepath.Join("/proc", strconv.Itoa(p.PID), "exe"))
}
