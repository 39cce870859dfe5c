package step

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// WallError is a wall of the sandbox that is not in force.
type WallError struct{ Wall, Found string }

func (e *WallError) Error() string {
	return fmt.Sprintf("isolation is not in force: %s: %s", e.Wall, e.Found)
}

// verifyRights checks that the calling thread, which is about to become the
// command, has lost what it was to lose: the RUN filter is in force, not just
// loaded and not just the executor's below it; no capability but those of keep
// can come back by exec, and none but those of own is there now.
func verifyRights(id identity, keep, own uint64) error {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	if err != nil || mode != unix.SECCOMP_MODE_FILTER {
		return &WallError{"seccomp", fmt.Sprintf("the mode of a RUN step is %d instead of 2 (%v)", mode, err)}
	}
	// The executor's filter allows these, and gVisor takes the first as it is.
	if _, _, e := unix.RawSyscall(unix.SYS_UNSHARE, 0, 0, 0); e != unix.EPERM {
		return &WallError{"seccomp", fmt.Sprintf("the filter of a RUN step does not stop unshare (%v)", e)}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
		return &WallError{"seccomp", fmt.Sprintf("the filter of a RUN step does not stop clone3 (%v)", e)}
	}
	if err := verifyBounding(keep); err != nil {
		return err
	}
	if err := verifySets(own); err != nil {
		return err
	}
	if u, g := unix.Getuid(), unix.Getgid(); u != int(id.UID) || g != int(id.GID) || unix.Geteuid() != u || unix.Getegid() != g {
		return &WallError{"user", fmt.Sprintf("a RUN step is %d:%d instead of %d:%d", u, g, id.UID, id.GID)}
	}
	return nil
}

func verifyBounding(keep uint64) error {
	for c := range 64 {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no more
		}
		if err != nil || has != 0 && keep&(1<<c) == 0 {
			return &WallError{"capabilities", fmt.Sprintf("a RUN step's bounding set has capability %d (%v)", c, err)}
		}
	}
	return nil
}

func verifySets(own uint64) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return &WallError{"capabilities", "those of a RUN step cannot be read: " + err.Error()}
	}
	for i, set := range d {
		allowed := uint32(own >> (32 * i))
		if (set.Permitted|set.Effective)&^allowed != 0 || set.Inheritable != 0 {
			return &WallError{"capabilities", fmt.Sprintf("a RUN step has %08x, %08x and %08x, at most %08x is allowed",
				set.Permitted, set.Effective, set.Inheritable, allowed)}
		}
	}
	return nil
}
