package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// rightsTries are about capabilities, users and namespaces.
func rightsTries() map[string]attempt {
	return map[string]attempt{
		"caps":     capabilities,
		"groups":   groups,
		"negative": negativeGroup,
		"mksuid":   makeSetID,
		"gained":   gained,
		"userns":   regain,
		"xattrs":   overlayAttributes,
		"devices":  openDevices,
	}
}

// runCaps is Docker's default set: more than it no step may have.
const runCaps = 0xa80425fb

// status is /proc/self/status as far as it is about capabilities.
func status() map[string]uint64 {
	f, err := os.Open("/proc/thread-self/status")
	must(err)
	defer f.Close()
	caps := map[string]uint64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if strings.HasPrefix(name, "Cap") {
			caps[name], err = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			must(err)
		}
	}
	return caps
}

// bounded wants that no set is larger than what steps may have.
func (p *probe) bounded() {
	caps := status()
	for name, set := range caps {
		p.see("%s %#x", name, set)
		if extra := set &^ runCaps; extra != 0 {
			p.escape("%s has %x too many", name, extra)
		}
	}
}

// capabilities wants nothing that a program with file capabilities could inherit.
func capabilities(p *probe, _ []string) string {
	p.bounded()
	caps := status()
	if caps["CapInh"] != 0 || caps["CapAmb"] != 0 {
		p.escape("inheritable %x, ambient %x", caps["CapInh"], caps["CapAmb"])
	}
	if caps["CapBnd"] == 0 || caps["CapEff"] == 0 {
		p.escape("root has no capabilities: this looks at nothing")
	}
	return contained
}

// groups wants exactly these user, group and supplementary groups: UID GID GROUP,...
func groups(p *probe, args []string) string {
	list, err := os.Getgroups()
	must(err)
	got := fmt.Sprint(os.Getuid(), os.Getgid(), list)
	p.see("%s", got)
	if want := strings.Join(args, " "); got != want {
		p.escape("the user is %s, not %s", got, want)
	}
	return contained
}

// negativeGroup wants to be kept out of a file because of a group.
func negativeGroup(p *probe, args []string) string {
	if _, err := os.ReadFile(args[0]); err == nil {
		p.escape("%s can be read", args[0])
	} else {
		p.see("%v", err)
	}
	return contained
}

// makeSetID makes copies of this program that promise rights to who runs them: a
// set-id one, and ones with file capabilities.
func makeSetID(p *probe, _ []string) string {
	self, err := os.ReadFile("/proc/self/exe")
	must(err)
	for name, caps := range map[string]uint64{"suid": 0, "capall": 1<<41 - 1, "capsome": 1 << unix.CAP_SYS_ADMIN, "capinh": 1<<41 - 1} {
		file := "/" + name
		must(os.WriteFile(file, self, 0o755))
		switch name {
		case "suid":
			must(os.Chmod(file, 0o755|os.ModeSetuid))
		case "capinh":
			must(unix.Setxattr(file, "security.capability", fileCaps(0, caps), 0))
		default:
			must(unix.Setxattr(file, "security.capability", fileCaps(caps, 0), 0))
		}
	}
	return ""
}

// fileCaps is vfs_cap_data of revision 2, effective.
func fileCaps(permitted, inheritable uint64) []byte {
	const revision, effective = 0x02000000, 1
	b := binary.LittleEndian.AppendUint32(nil, revision|effective)
	for _, shift := range []uint{0, 32} {
		b = binary.LittleEndian.AppendUint32(b, uint32(permitted>>shift))
		b = binary.LittleEndian.AppendUint32(b, uint32(inheritable>>shift))
	}
	return b
}

// gained runs the copies as somebody who has nothing. "gained show" is what they
// run: it says what it has.
func gained(p *probe, args []string) string {
	if len(args) > 0 {
		fmt.Println("has", os.Geteuid())
		p.bounded()
		fmt.Println(strings.Join(p.seen, ", "))
		for _, o := range p.out {
			fmt.Println("too much:", o)
		}
		return ""
	}
	if os.Getuid() == 0 || status()["CapEff"] != 0 {
		p.escape("it has rights before: this looks at nothing")
	}
	for _, name := range []string{"suid", "capall", "capsome", "capinh"} {
		out, err := exec.Command("/"+name, p.id, "gained", "show").CombinedOutput()
		p.see("%s: %v %s", name, err, out)
		if strings.Contains(string(out), "too much") {
			p.escape("%s: %s", name, out)
		}
		if name == "suid" && !strings.Contains(string(out), "has 0\n") {
			p.escape("a set-id program does not become root, which is promised: %s", out)
		}
	}
	return contained
}

// regain tries to get a user namespace, in which root has all capabilities, or
// another's.
func regain(p *probe, _ []string) string {
	news := map[string]uintptr{
		"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET,
		"ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "all": unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
	}
	for name, flags := range news {
		p.refused("unshare "+name, unix.Unshare(int(flags)), unix.EPERM)
		cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"probe"}, SysProcAttr: &syscall.SysProcAttr{Cloneflags: flags}}
		err := cmd.Start()
		if err == nil {
			_ = cmd.Wait()
			p.escape("clone %s", name)
		}
		p.see("clone %s: %v", name, err)
	}
	args := make([]byte, 88)
	binary.LittleEndian.PutUint64(args, unix.CLONE_NEWUSER)
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, addressOf(args), uintptr(len(args)), 0)
	p.refused("clone3", e, unix.ENOSYS)
	spaces, _ := filepath.Glob("/proc/1/ns/*")
	for _, ns := range spaces {
		fd, err := unix.Open(ns, unix.O_RDONLY, 0)
		if err != nil {
			continue
		}
		p.refused("setns "+ns, unix.Setns(fd, 0), unix.EPERM)
		unix.Close(fd)
	}
	if fd, err := unix.PidfdOpen(1, 0); err == nil {
		p.refused("setns of a pidfd", unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWNET), unix.EPERM)
		_, err := unix.PidfdGetfd(fd, 0, 0)
		p.refused("pidfd_getfd", err, unix.EPERM)
	}
	return inert
}

// refused wants an error.
func (p *probe) refused(what string, got error, want error) {
	p.see("%s: %v", what, got)
	if got != want {
		p.escape("%s: %v, want %v", what, got, want)
	}
}

// overlayAttributes tries to set what an overlay filesystem would obey on a
// directory and a file of its own.
func overlayAttributes(p *probe, _ []string) string {
	must(os.MkdirAll("/attributes/dir", 0o755))
	must(os.WriteFile("/attributes/file", []byte("x"), 0o644))
	must(unix.Setxattr("/attributes/file", "user.ordinary", []byte("x"), 0))
	for _, prefix := range []string{"trusted.overlay.", "user.overlay."} {
		for _, name := range []string{"opaque", "redirect", "metacopy", "origin", "whiteout"} {
			for _, path := range []string{"/attributes/dir", "/attributes/file"} {
				err := unix.Setxattr(path, prefix+name, []byte("y"), 0)
				p.see("%s on %s: %v", prefix+name, path, err)
				if err == nil {
					p.escape("%s can be set on %s", prefix+name, path)
				}
			}
		}
	}
	return contained
}

// openDevices opens devices, which nobody may. Two of them the sandbox's kernel
// has itself: they open, and are good for nothing without rights that a step lacks.
func openDevices(p *probe, files []string) string {
	for _, file := range files {
		var st unix.Stat_t
		must(unix.Lstat(file, &st))
		if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
			fail(file + " is no device")
		}
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_NONBLOCK, 0)
		p.see("%s: %v", file, err)
		if err != nil {
			continue
		}
		switch st.Rdev {
		case unix.Mkdev(10, 200): // tun
			request := make([]byte, 40)
			copy(request, "planted")
			binary.LittleEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_TUN)
			_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, addressOf(request))
			p.refused("a TUN interface", e, unix.EPERM)
		case unix.Mkdev(10, 229): // FUSE
			_, err := unix.Read(fd, make([]byte, 64<<10))
			p.refused("requests of a FUSE filesystem", err, unix.EPERM)
			p.refused("a FUSE filesystem", unix.Mount("x", "/tmp", "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)), unix.EPERM)
		default:
			p.escape("%s can be opened", file)
		}
		unix.Close(fd)
	}
	return contained
}
