package layer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const capabilityAttr = "security.capability"

// keptAttr says whether an extended attribute belongs into a layer. Overlay
// attributes would be instructions to somebody's overlay, labels and
// signatures of this machine mean nothing on another.
func keptAttr(name string) bool {
	if strings.HasPrefix(name, "user.") {
		return !strings.HasPrefix(name, "user.overlay.")
	}
	return name == capabilityAttr
}

// storedAttr says whether an attribute of a layer is set on what is unpacked:
// those that are kept, and access control lists, which RUN steps see.
func storedAttr(name string) bool {
	return keptAttr(name) || strings.HasPrefix(name, "system.posix_acl_")
}

// attrs reads the extended attributes of an open file that keep selects.
// buf is scratch space; it should hold 64 KiB, the most that there can be.
func attrs(fd int, buf []byte, keep func(string) bool) (map[string]string, error) {
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	var out map[string]string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || !keep(name) {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, buf)
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q: %w", name, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = string(buf[:n])
	}
	return out, nil
}

// setAttrs sets extended attributes on an open file. Those that the file
// system cannot hold are left out, as other extractors do.
func setAttrs(fd int, m map[string]string) error {
	for name, value := range m {
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %q: %w", name, err)
		}
	}
	return nil
}

// copyAttrs copies the extended attributes that a layer may have from the file
// at src, which is no symbolic link.
func copyAttrs(fd int, src string, buf []byte) error {
	from, err := unix.Open(src, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	m, err := attrs(from, buf, storedAttr)
	if err != nil {
		return err
	}
	return setAttrs(fd, m)
}
