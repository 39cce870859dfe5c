package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
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
	root, err := beneath.OpenRoot(c.Root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, setUp := range []func(root int) error{mountProc, mountSys, c.showNoNetwork, c.mountDev, c.mountRest} {
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
	err := beneath.Retry(func() (err error) { fd, err = unix.Openat2(root, target, how); return err })
	if err != nil {
		return -1, &fs.PathError{Op: "open mount point", Path: target, Err: err}
	}
	return fd, nil
}

// descriptor is the path of an open descriptor, for calls that take a path.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// mounting is what mount(2) is told beside the mount point.
type mounting struct {
	source, kind string
	flags        uintptr
	data         string
}

// at mounts m on target below root.
func (m mounting) at(root int, target string) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(m.source, descriptor(fd), m.kind, m.flags, m.data); err != nil {
		return &fs.PathError{Op: "mount " + m.kind, Path: target, Err: err}
	}
	return nil
}

// fresh is a new filesystem of a kind.
func fresh(kind string, flags uintptr, data string) mounting {
	return mounting{source: kind, kind: kind, flags: flags, data: data}
}

func mountProc(root int) error {
	if err := fresh("proc", nosuidNodevNoexec, "").at(root, "/proc"); err != nil {
		return err
	}
	// gVisor's own directory has the sandbox's environment and triggers
	// checkpoints; the others tell about the machine.
	for _, dir := range []string{"gvisor", "acpi", "scsi", "asound"} {
		err := fresh("tmpfs", nosuidNodevNoexec|unix.MS_RDONLY, "").at(root, "/proc/"+dir)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, file := range []string{"kcore", "keys", "latency_stats", "sched_debug", "sentry-meminfo", "timer_list", "timer_stats"} {
		if err := bindAt(root, "/dev/null", "/proc/"+file, 0); err != nil && !errors.Is(err, unix.ENOENT) {
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
	if err := fresh("sysfs", nosuidNodevNoexec|unix.MS_RDONLY, "").at(root, "/sys"); err != nil {
		return err
	}
	err := fresh("tmpfs", nosuidNodevNoexec|unix.MS_RDONLY, "").at(root, "/sys/firmware")
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

// bindAt binds source, a path of the executor free of links, to target. The
// executor's own root is still there: a link in source, whoever made it, would
// lead into it, and so is refused. Flags, such as MS_RDONLY, hold from the mount's
// first moment: the target may lie in a cache that another step changes at the
// same time, where the mount might not be found again.
func bindAt(root int, source, target string, flags uintptr) error {
	if flags != 0 {
		unlock, err := lockSource(source, flags)
		if err != nil {
			return fmt.Errorf("source of mount %s: %w", target, err)
		}
		defer unlock()
	}
	from, err := openSource(source)
	if err != nil {
		return fmt.Errorf("source of mount %s: %w", target, err)
	}
	defer unix.Close(from)
	return mounting{source: descriptor(from), flags: unix.MS_BIND}.at(root, target)
}

func openSource(source string) (fd int, err error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	err = beneath.Retry(func() (err error) { fd, err = unix.Openat2(unix.AT_FDCWD, source, how); return err })
	return fd, err
}

// lockSource binds source over itself, with flags, which what is bound from it
// has too, until unlock is called.
func lockSource(source string, flags uintptr) (unlock func(), err error) {
	under, err := openSource(source)
	if err != nil {
		return nil, err
	}
	defer unix.Close(under)
	if err := unix.Mount(descriptor(under), descriptor(under), "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	// If that fails, the mount goes with the child.
	unlock = func() { _ = unix.Unmount(source, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }
	over, err := openSource(source)
	if err == nil {
		err = unix.Mount("", descriptor(over), "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
		unix.Close(over)
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("remount: %w", err)
	}
	return unlock, nil
}

// remountReadOnly does it to the mount that target is the root of.
func remountReadOnly(root int, target string) error {
	return mounting{flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY}.at(root, target)
}

// mountDev makes a /dev of the command's own.
func (c *childConfig) mountDev(root int) error {
	tmpfs := fresh("tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=64m")
	if err := tmpfs.at(root, "/dev"); err != nil {
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
	for name, m := range map[string]mounting{
		"pts":    fresh("devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		"shm":    fresh("tmpfs", nosuidNodevNoexec, fmt.Sprintf("mode=1777,size=%d", c.ShmSize)),
		"mqueue": fresh("mqueue", nosuidNodevNoexec, ""),
	} {
		if err := unix.Mkdirat(dev, name, 0o755); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
		if err := m.at(root, "/dev/"+name); err != nil {
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
	return bindAt(root, "/dev/"+name, "/dev/"+name, 0)
}

func makeFile(dir int, name string) error {
	fd, err := beneath.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
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
		fd, err := beneath.Openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
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
	if err := c.stageSecrets(); err != nil {
		return err
	}
	for n, m := range c.Mounts {
		err := makeTarget(root, m)
		switch {
		case err != nil:
		case m.Source != "":
			err = bindAt(root, m.Source, m.Target, m.flags())
		case m.Secret != nil:
			err = c.mountSecret(root, n, m)
		default:
			err = mountTmpfs(root, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flags are those of the mount of a source.
func (m childMount) flags() uintptr {
	if m.ReadOnly {
		return unix.MS_RDONLY
	}
	return 0
}

// makeTarget makes a mount point inside another mount; in the stage itself all
// are there.
func makeTarget(root int, m childMount) error {
	at, err := beneath.Resolve(root, m.Target)
	if err != nil {
		return err
	}
	defer at.Close()
	if len(at.Rest) == 0 {
		return nil
	}
	if m.isDir() {
		return mkdirs(at.FD, at.Rest)
	}
	last := len(at.Rest) - 1
	if err := mkdirs(at.FD, at.Rest[:last]); err != nil {
		return err
	}
	fd, err := openTarget(root, path.Join("/", at.Path, path.Join(at.Rest[:last]...)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makeFile(fd, at.Rest[last])
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
	return fresh("tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data).at(root, m.Target)
}
