package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openSub opens a directory in another one, never through a symbolic link. On
// Linux openat does that with O_NOFOLLOW; gVisor's follows a link when
// O_DIRECTORY is given too, its openat2 does not.
func openSub(dirfd int, name string) (int, error) {
	how := unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(dirfd, name, &how)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	return openSubOld(dirfd, name)
}

// openSubOld does without openat2, which older gVisors and filters lack.
func openSubOld(dirfd int, name string) (int, error) {
	var before, after unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &before, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1, unix.ENOTDIR
	}
	fd, err := unix.Openat(dirfd, name, openDir, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, &after); err != nil || before.Ino != after.Ino || before.Dev != after.Dev {
		unix.Close(fd)
		return -1, unix.ELOOP
	}
	return fd, nil
}

// dirent is one name in a directory with its type, DT_...
type dirent struct {
	name string
	kind byte
}

// readDir returns what an open directory holds, unsorted. os.File.ReadDir would
// do, but for a buffer of 8 KiB and an object an entry.
func readDir(fd int, buf []byte) ([]dirent, error) {
	var out []dirent
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read directory: %w", err)
		}
		if n == 0 {
			return out, nil
		}
		// struct linux_dirent64: ino, off, reclen, type, name
		for b := buf[:n]; len(b) > 19; {
			size := int(binary.LittleEndian.Uint16(b[16:]))
			if size < 19 || size > len(b) {
				return nil, errors.New("read directory: bad entry")
			}
			name := b[19:size]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				out = append(out, dirent{name: s, kind: b[18]})
			}
			b = b[size:]
		}
	}
}

// fdReader reads from a file descriptor without Go's poller, which would cost
// system calls for every file.
type fdReader int

func (f fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
