package take

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes has the room for reading extended attributes.
type Attributes []byte

// Each calls do for every attribute of an open file that a copy keeps, in their
// order in the list.
func (r *Attributes) Each(fd int, do func(name string, value []byte) error) error {
	if *r == nil {
		*r = make([]byte, 128<<10) // XATTR_LIST_MAX and XATTR_SIZE_MAX
	}
	list, value := (*r)[:64<<10], (*r)[64<<10:]
	n, err := unix.Flistxattr(fd, list)
	if err != nil || n == 0 {
		return ignoreXattr(err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !keptXattr(name) {
			continue
		}
		k, err := unix.Fgetxattr(fd, name, value)
		if err == nil {
			err = do(name, value[:k])
		}
		if err := ignoreXattr(err); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// ignoreXattr passes on only what says that the disk is full or broken.
func ignoreXattr(err error) error {
	for _, bad := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS} {
		if errors.Is(err, bad) {
			return err
		}
	}
	return nil
}

// keptXattr says whether a stage's extended attribute is copied: marks of the
// overlay and labels of security modules belong to one machine.
func keptXattr(name string) bool {
	switch name {
	case "security.selinux", "security.ima", "security.evm":
		return false
	}
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}
