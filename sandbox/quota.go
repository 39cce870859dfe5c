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

// SpaceError says that a disk of the host is too full to begin or to go on, or
// that a run has taken all that it may take of it. All numbers are bytes.
type SpaceError struct {
	Dir  string
	Free int64
	Need int64
	// Output: Dir is where an output goes, and not the work directory.
	Output bool
	// Limit is what was asked for (--work-size) where that is the bound; 0: it is
	// not. Work is what the sandboxes' workspaces have of it, Kept the launcher.
	Limit, Work, Kept int64
}

func (e *SpaceError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("%s: no space: the workspaces of the sandboxes take %d MiB and what the launcher keeps of the build %d MiB, %d MiB are allowed: raise --work-size",
			e.Dir, e.Work>>20, e.Kept>>20, e.Limit>>20)
	}
	s := fmt.Sprintf("%s: no space: %d MiB are free on this disk of the host, ", e.Dir, e.Free>>20)
	if e.Need <= margin {
		s += fmt.Sprintf("and a build leaves %d MiB to others", e.Need>>20)
	} else {
		s += fmt.Sprintf("%d MiB are needed", e.Need>>20)
	}
	if e.Output {
		return s
	}
	return s + ": --work-dir names another directory"
}

// workspaceQuota returns the size of each workspace in bytes: what was asked
// for, but never more than the disk has, so that a step finds its disk full
// before the host does. What all of them take together is watched, see disk.
func workspaceQuota(c Config) (int64, error) {
	free, err := freeSpace(c.WorkDir)
	if err != nil {
		return 0, err
	}
	if free < margin+minQuota {
		return 0, &SpaceError{Dir: c.WorkDir, Free: free, Need: margin + minQuota}
	}
	q := free - margin
	q -= min(q/8, margin) // the launcher keeps something beside it
	if c.Quota <= 0 || c.Quota > q {
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
