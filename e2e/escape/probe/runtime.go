package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runtimeTries are about what of the sandbox a step sees and can change.
func runtimeTries() map[string]attempt {
	return map[string]attempt{
		"exe":     overwriteExecutables,
		"fds":     openDescriptors,
		"masks":   maskedFiles,
		"proc":    genuineProc,
		"wait":    waitForVictim,
		"alone":   alone,
		"objects": holdObjects,
		"steal":   stealObjects,
		"detach":  oldRoot,
		"cgroup":  releaseAgent,
		"text":    overwriteText,
		"swap":    swapLinks,
	}
}

// overwriteExecutables writes to every program that runs here, and looks for the
// executor's.
func overwriteExecutables(p *probe, _ []string) string {
	self, err := os.ReadFile("/proc/self/exe")
	must(err)
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range append(links, "/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe", "/proc/1/root/proc/1/exe") {
		to, _ := os.Readlink(l)
		f, err := os.OpenFile(l, os.O_RDWR, 0)
		p.see("%s -> %s: %v", l, to, err)
		if err != nil {
			continue
		}
		// The same bytes again: on gVisor, what runs can be written to (R7).
		_, err = f.WriteAt(self[:16], 0)
		f.Close()
		if to != "/probe" {
			p.escape("%s is %s: %v", l, to, err)
		}
	}
	for _, file := range []string{"/kbuild-executor", "/executor", "/proc/1/root/kbuild-executor", "/kaniko/executor", "/in", "/w", "/store"} {
		if _, err := os.Lstat(file); err == nil {
			p.escape("%s is here", file)
		}
	}
	return contained
}

// openDescriptors wants nothing open but the standard three, and no way through them
// or the working directory to another root.
func openDescriptors(p *probe, _ []string) string {
	dirs, err := filepath.Glob("/proc/[0-9]*/fd/*")
	must(err)
	for _, d := range dirs {
		to, err := os.Readlink(d)
		if err != nil {
			continue // the one that listed them
		}
		p.see("%s -> %s", d, to)
		if n, _ := strconv.Atoi(filepath.Base(d)); n > 2 && !strings.HasPrefix(to, "anon_inode:") {
			p.escape("%s is open: %s", d, to)
		}
	}
	var root, up unix.Stat_t
	must(unix.Stat("/", &root))
	for _, path := range []string{"../../../../../../../..", "/proc/self/cwd/../../../../../../..", "/proc/1/root/..", "/proc/self/fd/0/../../../.."} {
		if unix.Stat(path, &up) == nil && (up.Ino != root.Ino || up.Dev != root.Dev) {
			p.escape("%s is another root", path)
		}
	}
	for fd := 3; fd < 256; fd++ {
		for _, path := range []string{"/proc/self/fd/", "/proc/1/fd/"} {
			path += strconv.Itoa(fd) + "/../../../etc/canary"
			if _, err := os.Stat(path); err == nil {
				p.escape("%s is here", path)
			}
		}
	}
	return contained
}

// maskedFiles wants that what is hidden from a step is hidden, and that /dev/null
// is what it should be, whatever the image has in their places.
func maskedFiles(p *probe, _ []string) string {
	var st unix.Stat_t
	for name, dev := range map[string]uint64{"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "random": unix.Mkdev(1, 8)} {
		must(unix.Lstat("/dev/"+name, &st))
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != dev {
			p.escape("/dev/%s is %o %x", name, st.Mode, st.Rdev)
		}
	}
	for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sentry-meminfo", "/proc/sysrq-trigger"} {
		b, err := os.ReadFile(file)
		p.see("%s: %d bytes, %v", file, len(b), err)
		if len(b) > 0 {
			p.escape("%s has %d bytes", file, len(b))
		}
	}
	for _, file := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/sys/kernel/x", "/proc/gvisor/checkpoint"} {
		if err := os.WriteFile(file, []byte("|/x"), 0o600); err == nil {
			p.escape("%s can be written to", file)
		}
	}
	if names, err := os.ReadDir("/proc/gvisor"); err == nil && len(names) > 0 {
		p.escape("/proc/gvisor has %v", names)
	}
	return contained
}

// genuineProc wants that /proc is procfs, /sys sysfs and /dev a tmpfs, and that
// files of the image, given as arguments, are as they were.
func genuineProc(p *probe, files []string) string {
	const proc, sys, tmpfs = 0x9fa0, 0x62656572, 0x1021994
	for path, kind := range map[string]int64{"/proc/": proc, "/sys/": sys, "/dev/": tmpfs} {
		var st unix.Statfs_t
		must(unix.Statfs(path, &st))
		p.see("%s %x", path, st.Type)
		if st.Type != kind {
			p.escape("%s is of the kind %x", path, st.Type)
		}
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err != nil || string(b) != "untouched" {
			p.escape("%s: %q, %v", file, b, err)
		}
	}
	return contained
}

// waitForVictim stays, and traces and robs whoever comes.
func waitForVictim(p *probe, _ []string) string {
	self := os.Getpid()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range procs {
			pid, _ := strconv.Atoi(filepath.Base(d))
			if pid != self && pid != 1 && unix.PtraceAttach(pid) == nil {
				_ = os.WriteFile("/dev/shm/robbed", []byte(d), 0o600)
			}
		}
		time.Sleep(time.Millisecond)
	}
	return ""
}

// alone wants to be the only process.
func alone(p *probe, _ []string) string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	p.see("%d processes, this is %d", len(procs), os.Getpid())
	for _, d := range procs {
		if pid, _ := strconv.Atoi(filepath.Base(d)); pid != os.Getpid() {
			line, _ := os.ReadFile(d + "/cmdline")
			p.escape("process %s: %q", filepath.Base(d), bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	if _, err := os.Stat("/dev/shm/robbed"); err == nil {
		p.escape("a process was traced")
	}
	return inert
}

// oldRoot tries to bring a mount back that was taken away (gVisor issue 13481).
func oldRoot(p *probe, _ []string) string {
	for _, path := range []string{"/", "/proc/1/root", "/proc/self/cwd"} {
		for _, flags := range []uint{0, 1 /* OPEN_TREE_CLONE */, 1 | unix.AT_RECURSIVE} {
			fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
			p.see("open_tree %s %#x: %v", path, flags, err)
			if err == nil {
				p.escape("open_tree %s %#x", path, flags)
				_ = unix.MoveMount(fd, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH)
			}
		}
	}
	for name, try := range map[string]func() error{
		"mount":      func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
		"bind":       func() error { return unix.Mount("/", "/tmp", "", unix.MS_BIND|unix.MS_REC, "") },
		"remount":    func() error { return unix.Mount("", "/sys", "", unix.MS_REMOUNT, "") },
		"umount":     func() error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) },
		"pivot_root": func() error { return unix.PivotRoot(".", ".") },
		"fsopen":     func() error { _, err := unix.Fsopen("proc", 0); return err },
		"move_mount": func() error { return unix.MoveMount(0, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH) },
	} {
		if err := try(); err != unix.EPERM {
			p.escape("%s: %v", name, err)
		}
	}
	return inert
}

// releaseAgent tries to have the kernel run a program when a cgroup is empty.
func releaseAgent(p *probe, _ []string) string {
	must(os.MkdirAll("/tmp/cgrp", 0o755))
	for _, kind := range []string{"cgroup", "cgroup2"} {
		err := unix.Mount(kind, "/tmp/cgrp", kind, 0, "memory")
		p.see("mount %s: %v", kind, err)
		if err != unix.EPERM {
			p.escape("mount %s: %v", kind, err)
		}
	}
	agents, _ := filepath.Glob("/sys/fs/cgroup/*")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/*")
	for _, file := range slices.Concat(agents, more) {
		base := filepath.Base(file)
		if base == "release_agent" || base == "notify_on_release" || base == "cgroup.procs" {
			if err := os.WriteFile(file, []byte("/probe"), 0); err == nil {
				p.escape("%s can be written to", file)
			}
		}
	}
	if err := os.MkdirAll("/sys/fs/cgroup/memory/x", 0o755); err == nil {
		p.escape("a cgroup can be made")
	}
	return inert
}

// overwriteText overwrites a program, and this one while it runs.
func overwriteText(p *probe, files []string) string {
	for _, file := range append(files, "/proc/self/exe") {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		must(err)
		b := make([]byte, 64)
		_, err = f.ReadAt(b, 0)
		must(err)
		_, err = f.WriteAt(bytes.Repeat([]byte("X"), len(b)), 0)
		p.see("%s: %v", file, err)
		f.Close()
	}
	return contained
}

// swapLinks makes DIR/d a link to DIR/real and to / in turns, without a moment in
// which it is not there, until the time, in seconds, is up: DIR SECONDS.
func swapLinks(p *probe, args []string) string {
	dir := args[0]
	wait, err := time.ParseDuration(args[1] + "s")
	must(err)
	link, next := filepath.Join(dir, "d"), filepath.Join(dir, "next")
	_ = os.Remove(next) // of a build before
	rounds := 0
	for end := time.Now().Add(wait); time.Now().Before(end); rounds++ {
		to := "/"
		if rounds%2 == 0 {
			to = "real"
		}
		must(os.Symlink(to, next))
		must(os.Rename(next, link))
	}
	fmt.Println("swapped", rounds, p.nonce)
	return ""
}
