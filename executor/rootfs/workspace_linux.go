package rootfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// workspaceDir is the preferred place of a workspace: the shorter its name, the
// more lowers one mount takes.
const workspaceDir = "/w"

// Workspace mounts a tmpfs for a workspace, for a process in a mount namespace
// of its own whose container was not given one. It lies at /w, or below the
// directory for temporary files where /w cannot be made.
func Workspace() (dir string, cleanup func(), err error) {
	dir = workspaceDir
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		if dir, err = os.MkdirTemp("", "w"); err != nil {
			return "", nil, fmt.Errorf("make workspace: %w", err)
		}
	}
	if err := unix.Mount("workspace", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return "", nil, fmt.Errorf("mount workspace: %w", err)
	}
	return dir, func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }, nil
}
