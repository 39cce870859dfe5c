package posture

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Measure measures the walls around the calling process. The program's version
// is left to the caller.
func Measure() (p request.Posture, err error) {
	for _, part := range []func(*request.Posture) error{
		kernel, status, userNamespace, processes, mounts, network, program, files,
	} {
		if err := part(&p); err != nil {
			return p, fmt.Errorf("measure posture: %w", err)
		}
	}
	p.Denied = denied()
	return p, nil
}

func kernel(p *request.Posture) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	p.Kernel, p.GVisor = unix.ByteSliceToString(u.Release[:]), inGVisor()
	return nil
}

// inGVisor says whether the kernel is gVisor's. Names and versions can be
// imitated (by a container's environment, uname by a personality); procfs cannot:
// no kernel but gVisor's has /proc/gvisor, nobody can make a directory in procfs,
// and a mount over it would be of another type or show another path.
func inGVisor() bool {
	const procMagic = 0x9fa0
	fd, err := unix.Open("/proc/gvisor", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != procMagic {
		return false
	}
	var proc, dir unix.Stat_t
	if unix.Stat("/proc", &proc) != nil || unix.Fstat(fd, &dir) != nil {
		return false
	}
	return proc.Dev == dir.Dev
}

// status takes what /proc/self/status has.
func status(p *request.Posture) (err error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	c := &p.Capabilities
	texts := map[string]*string{
		"CapInh": &c.Inheritable, "CapPrm": &c.Permitted, "CapEff": &c.Effective, "CapBnd": &c.Bounding, "CapAmb": &c.Ambient,
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch to := texts[name]; {
		case to != nil:
			*to = value
		case name == "Seccomp":
			if p.Seccomp, err = strconv.Atoi(value); err != nil {
				return err
			}
		case name == "NoNewPrivs":
			p.NoNewPrivs = value != "0"
		}
	}
	p.UID, p.GID = os.Getuid(), os.Getgid()
	return nil
}

// userNamespace: the first has a fixed number, in gVisor 1, in Linux
// PROC_USER_INIT_INO.
func userNamespace(p *request.Posture) error {
	ns, err := os.Readlink("/proc/self/ns/user")
	p.InUserns = ns != "user:[1]" && ns != "user:[4026531837]"
	return err
}

// processes counts those that this one sees beside itself.
func processes(p *request.Posture) error {
	names, err := names("/proc")
	p.PID = os.Getpid()
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != p.PID {
			p.Processes++
		}
	}
	return err
}

func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// mounts reads what lies where (proc_pid_mountinfo(5)). A mount that another
// covers counts too.
func mounts(p *request.Posture) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		own, super, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(own), strings.Fields(super)
		if !ok || len(left) < 6 || len(right) < 1 {
			return fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		readOnly := slices.Contains(strings.Split(left[5], ","), "ro")
		p.Mounts = append(p.Mounts, request.Mounted{Target: request.GuestPath(left[4]), Type: right[0], Writable: !readOnly})
	}
	slices.SortStableFunc(p.Mounts, func(a, b request.Mounted) int { return strings.Compare(string(a.Target), string(b.Target)) })
	return nil
}

// program takes the digest of the file that runs.
func program(p *request.Posture) error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	// An *os.File would bring a small buffer of its own, and each read is a system call.
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return err
	}
	p.Digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return nil
}

// files lists the kinds of the open files, but for that which lists them.
func files(p *request.Posture) error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	self := strconv.Itoa(int(dir.Fd()))
	for _, fd := range list {
		to, err := os.Readlink(path.Join("/proc/self/fd", fd))
		if errors.Is(err, os.ErrNotExist) || fd == self {
			continue
		}
		if err != nil {
			return err
		}
		kind, _, _ := strings.Cut(to, ":[") // what follows is a number that varies
		p.Files = append(p.Files, kind)
	}
	slices.Sort(p.Files)
	return nil
}
