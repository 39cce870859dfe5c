package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What daemons hold.
const (
	abstract = "@residue"
	tcpPort  = "127.0.0.1:47123"
	udpPort  = "127.0.0.1:47124"
	lockFile = "/etc/passwd"
	pipeFile = "/dev/shm/residue-fifo"
)

// processes are processes, and what only a process can hold.
func processes() []kind {
	own := &syscall.SysProcAttr{Setsid: true}
	running := func(name string) func() bool {
		return func() bool { return daemonNamed(name) }
	}
	starts := func(name string, attr *syscall.SysProcAttr) func() error {
		return func() error { return start(name, attr) }
	}
	return []kind{
		left("a child process", starts("child", nil), running("child")),
		left("a daemon in a session of its own", starts("session", own), running("session")),
		left("a stopped process", starts("stopped", own), running("stopped")),
		left("a process of another user", starts("user", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}), running("user")),
		left("an abstract socket that listens", starts("abstract", own), dials("unix", abstract)),
		left("a TCP port that listens", starts("tcp", own), dials("tcp", tcpPort)),
		left("a UDP port that is bound", starts("udp", own), bound),
		left("a lock on a file", starts("lock", own), locked),
		left("a reader of a FIFO", starts("fifo", own), read),
		left("memory without a name", starts("memfd", own), holds("residue-memfd")),
		left("an open file that was removed", starts("removed", own), holds("residue-removed")),
	}
}

// hold takes what the daemon of a kind is about.
func hold(name string) error {
	switch name {
	case "abstract":
		_, err := net.Listen("unix", abstract)
		return err
	case "tcp":
		_, err := net.Listen("tcp", tcpPort)
		return err
	case "udp":
		_, err := net.ListenPacket("udp", udpPort)
		return err
	case "lock":
		fd, err := unix.Open(lockFile, unix.O_RDONLY, 0)
		return errors.Join(err, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
	case "fifo":
		if err := unix.Mkfifo(pipeFile, 0o600); err != nil {
			return err
		}
		_, err := unix.Open(pipeFile, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		return err
	case "memfd":
		_, err := unix.MemfdCreate("residue-memfd", 0)
		return err
	case "removed":
		const file = "/dev/shm/residue-removed"
		_, err := unix.Open(file, unix.O_RDWR|unix.O_CREAT, 0o600)
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// daemonNamed says whether the daemon of a kind is running.
func daemonNamed(name string) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		text, err := os.ReadFile(l)
		if err == nil && bytes.Equal(text, []byte("residue-daemon\x00daemon\x00"+name+"\x00")) {
			return true
		}
	}
	return false
}

func dials(network, address string) func() bool {
	return func() bool {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

func bound() bool {
	c, err := net.ListenPacket("udp", udpPort)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.EADDRINUSE)
}

func locked() bool {
	fd, err := unix.Open(lockFile, unix.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return errors.Is(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func read() bool {
	fd, err := unix.Open(pipeFile, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// holds says whether a descriptor of some process names a thing.
func holds(name string) func() bool {
	return func() bool {
		links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && strings.Contains(to, name) {
				return true
			}
		}
		return false
	}
}
