package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// margin is what a build leaves of a disk for everybody else, in bytes.
	margin = 256 << 20
	// minQuota is the smallest workspace in which a build makes sense.
	minQuota = 64 << 20
)

// SpaceError says that a disk is too full to begin or to go on.
type SpaceError struct {
	Dir  string
	Free int64 // bytes
	Need int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: no space: %d MiB are free, %d MiB are needed", e.Dir, e.Free>>20, e.Need>>20)
}

// workspaceQuota returns the size of the workspace in bytes: what was asked
// for, but never more than the disk has, so that a step finds its disk full
// before the host does.
func workspaceQuota(c Config) (int64, error) {
	free, err := freeSpace(c.WorkDir)
	if err != nil {
		return 0, err
	}
	if free < margin+minQuota {
		return 0, &SpaceError{Dir: c.WorkDir, Free: free, Need: margin + minQuota}
	}
	if q := free - margin; c.Quota <= 0 || c.Quota > q {
		return q, nil
	}
	return c.Quota, nil
}

// freeSpace returns the bytes that this user can still write below dir, or
// below the nearest directory above it that exists.
func freeSpace(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("free space of %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
