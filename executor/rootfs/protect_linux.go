package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Protect makes the file at path read-only for all who get to it through this
// mount namespace, whatever they may do to its filesystem: by a mount over
// itself. A program that is executed after it cannot be written through
// /proc/N/exe, which gVisor would allow while it runs.
func Protect(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("protect %s: %w", path, err)
	}
	// A user namespace cannot take these back from a mount that it was given.
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags := uintptr(st.Flags) & kept
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("protect %s: bind: %w", path, err)
	}
	if err := unix.Mount("", path, "", flags|unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("protect %s: make read-only: %w", path, err)
	}
	return nil
}
