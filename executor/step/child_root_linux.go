package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

const nosuidNodevNoexec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// enterRoot mounts all that the command sees and makes the stage the root.
// Nothing of what was mounted before can be reached then.
func (c *childConfig) enterRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	root, err := openRoot(c.Root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, setUp := range []func(root int) error{mountProc, mountSys, c.mountDev, c.mountRest} {
		if err := setUp(root); err != nil {
			return err
		}
	}
	return pivot(root)
}

// pivot makes root the root and takes the old one away.
func pivot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// Old and new root end up at the same place, the old one on top.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// openTarget opens a mount point below root. Links in it are the stage's: the
// kernel follows them below the root only (R14).
func openTarget(root int, target string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	err := retry(func() (err error) { fd, err = unix.Openat2(root, target, how); return err })
	if err != nil {
		return -1, &fs.PathError{Op: "open mount point", Path: target, Err: err}
	}
	return fd, nil
}

// descriptor is the path of an open descriptor, for calls that take a path.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// mountAt mounts on target below root.
func mountAt(root int, target, source, kind string, flags uintptr, data string) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(source, descriptor(fd), kind, flags, data); err != nil {
		return &fs.PathError{Op: "mount " + kind, Path: target, Err: err}
	}
	return nil
}

func mountProc(root int) error {
	if err := mountAt(root, "/proc", "proc", "proc", nosuidNodevNoexec, ""); err != nil {
		return err
	}
	// gVisor's own directory has the sandbox's environment and triggers
	// checkpoints; the others tell about the machine.
	for _, dir := range []string{"gvisor", "acpi", "scsi", "asound"} {
		err := mountAt(root, "/proc/"+dir, "tmpfs", "tmpfs", nosuidNodevNoexec|unix.MS_RDONLY, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, file := range []string{"kcore", "keys", "latency_stats", "sched_debug", "sentry-meminfo", "timer_list", "timer_stats"} {
		if err := bindAt(root, "/dev/null", "/proc/"+file, false); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, name := range []string{"bus", "fs", "irq", "sys", "sysrq-trigger"} {
		if err := lockAt(root, "/proc/"+name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func mountSys(root int) error {
	if err := mountAt(root, "/sys", "sysfs", "sysfs", nosuidNodevNoexec|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	err := mountAt(root, "/sys/firmware", "tmpfs", "tmpfs", nosuidNodevNoexec|unix.MS_RDONLY, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// lockAt makes what is at target read-only.
func lockAt(root int, target string) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(descriptor(fd), descriptor(fd), "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind", Path: target, Err: err}
	}
	return remountReadOnly(root, target)
}

// bindAt binds source, a path of the executor free of links, to target.
func bindAt(root int, source, target string, readOnly bool) error {
	from, err := openat(unix.AT_FDCWD, source, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("source of mount %s: %w", target, err)
	}
	defer unix.Close(from)
	if err := mountAt(root, target, descriptor(from), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	return remountReadOnly(root, target)
}

// remountReadOnly does it to the mount that target is the root of.
func remountReadOnly(root int, target string) error {
	return mountAt(root, target, "", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// mountDev makes a /dev of the command's own.
func (c *childConfig) mountDev(root int) error {
	if err := mountAt(root, "/dev", "tmpfs", "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=64m"); err != nil {
		return err
	}
	dev, err := openTarget(root, "/dev")
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	if err := makeDevices(root, dev); err != nil {
		return err
	}
	for link, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := unix.Symlinkat(to, dev, link); err != nil {
			return fmt.Errorf("make /dev/%s: %w", link, err)
		}
	}
	for _, m := range []struct {
		name, kind, data string
		flags            uintptr
	}{
		{"pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"shm", "tmpfs", fmt.Sprintf("mode=1777,size=%d", c.ShmSize), nosuidNodevNoexec},
		{"mqueue", "mqueue", "", nosuidNodevNoexec},
	} {
		if err := unix.Mkdirat(dev, m.name, 0o755); err != nil {
			return fmt.Errorf("make /dev/%s: %w", m.name, err)
		}
		if err := mountAt(root, "/dev/"+m.name, m.kind, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	return c.writeFiles(dev)
}

// makeDevices makes the devices that every program may count on. In a user
// namespace nobody may make any: the executor's own are bound there.
func makeDevices(root, dev int) error {
	for name, number := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7),
		"random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
	} {
		err := unix.Mknodat(dev, name, unix.S_IFCHR|0o666, int(number))
		if err == nil {
			// The umask may have taken something.
			err = unix.Fchmodat(dev, name, 0o666, 0)
		}
		if errors.Is(err, unix.EPERM) {
			err = bindDevice(root, dev, name)
		}
		if err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	return nil
}

func bindDevice(root, dev int, name string) error {
	if err := makeFile(dev, name); err != nil {
		return err
	}
	return bindAt(root, "/dev/"+name, "/dev/"+name, false)
}

func makeFile(dir int, name string) error {
	fd, err := openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: err}
	}
	return unix.Close(fd)
}

// writeFiles puts the here-documents of the RUN below /dev/pipes.
func (c *childConfig) writeFiles(dev int) error {
	if len(c.Files) == 0 {
		return nil
	}
	if err := mkdirs(dev, []string{"pipes"}); err != nil {
		return err
	}
	for _, f := range c.Files {
		if f.Name != path.Base(f.Name) || f.Name == "/" || f.Name == "." || f.Name == ".." {
			return fmt.Errorf("here-document %q: not a file name", f.Name)
		}
		name := "pipes/" + f.Name
		fd, err := openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return &fs.PathError{Op: "create", Path: name, Err: err}
		}
		file := os.NewFile(uintptr(fd), name)
		_, err = file.Write(f.Data)
		if err == nil {
			err = unix.Fchmod(fd, f.Mode&0o7777)
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("write here-document %s: %w", f.Name, err)
		}
	}
	return nil
}

// mountRest mounts what the RUN asks for.
func (c *childConfig) mountRest(root int) error {
	for _, m := range c.Mounts {
		if err := makeTarget(root, m); err != nil {
			return err
		}
		if m.Source != "" {
			if err := bindAt(root, m.Source, m.Target, m.ReadOnly); err != nil {
				return err
			}
			continue
		}
		if err := mountTmpfs(root, m); err != nil {
			return err
		}
	}
	return nil
}

// makeTarget makes a mount point inside another mount; in the stage itself all
// are there.
func makeTarget(root int, m childMount) error {
	at, err := resolve(root, m.Target)
	if err != nil {
		return err
	}
	defer at.close()
	if len(at.rest) == 0 {
		return nil
	}
	if m.isDir() {
		return mkdirs(at.fd, at.rest)
	}
	last := len(at.rest) - 1
	if err := mkdirs(at.fd, at.rest[:last]); err != nil {
		return err
	}
	fd, err := openTarget(root, path.Join("/", at.path, path.Join(at.rest[:last]...)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makeFile(fd, at.rest[last])
}

// mountTmpfs mounts an empty directory that looks like the one it hides.
func mountTmpfs(root int, m childMount) error {
	fd, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: m.Target, Err: err}
	}
	data := fmt.Sprintf("mode=%o", st.Mode&0o7777)
	if m.Size > 0 {
		data += fmt.Sprintf(",size=%d", m.Size)
	}
	return mountAt(root, m.Target, "tmpfs", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data)
}
