package layer

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setTimes sets both times of a name in a directory, of a link itself if it is
// one, or of the open file itself when name is empty.
func setTimes(fd int, name string, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{mtime, mtime}
	if name != "" {
		return unix.UtimesNanoAt(fd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	// futimens(3) is utimensat with no name at all.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0,
		uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// mtime returns a file's modification time. For times before 1970 gVisor gives
// the nanoseconds as a negative number in 32 bits, without its sign.
func mtime(st *unix.Stat_t) unix.Timespec {
	ts := st.Mtim
	if ts.Nsec >= int64(time.Second) {
		ts.Nsec = int64(int32(ts.Nsec)) + int64(time.Second)
		ts.Sec--
	}
	return ts
}

// timespec brings t into the range that 64 bits of nanoseconds hold, 1677 to
// 2262; gVisor counts time like that.
func timespec(t time.Time) unix.Timespec {
	const most = math.MaxInt64 / int64(time.Second)
	sec := min(max(t.Unix(), -most), most)
	return unix.Timespec{Sec: sec, Nsec: int64(t.Nanosecond())}
}
