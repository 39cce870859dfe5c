package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// places are files where no layer takes them along, mounts, and what a step is
// lent: the Dockerfile gives the first step a secret, an agent, a tmpfs and
// writable views of the context and of another stage at these places.
func places() []kind {
	return []kind{
		left("a file in /dev/shm", func() error { return write("/dev/shm/residue", "x") }, there("/dev/shm/residue")),
		left("a file in /dev", func() error { return write("/dev/residue", "x") }, there("/dev/residue")),
		left("a device", func() error { return unix.Mknod("/dev/residue-null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }, there("/dev/residue-null")),
		left("a file in a tmpfs", func() error { return write("/lent/tmpfs/residue", "x") }, there("/lent/tmpfs/residue")),
		left("a file in a writable view of the context", func() error { return write("/lent/context/residue", "x") }, there("/lent/context/residue")),
		left("a file in a writable view of a stage", func() error { return write("/lent/stage/residue", "x") }, there("/lent/stage/residue")),
		left("a mount point of what was lent", given("/lent/tmpfs"), there("/lent")),
		left("a secret file", given("/run/secrets/token"), there("/run/secrets")),
		left("a secret variable", givenEnv("TOKEN"), func() bool { return os.Getenv("TOKEN") != "" }),
		left("a secret anywhere in memory of /dev, /run and /tmp", given("/run/secrets/token"), secretIn("/dev/shm", "/run", "/tmp")),
		left("the socket of an SSH agent", given("/run/buildkit/ssh_agent.0"), there("/run/buildkit")),
		left("the address of an SSH agent", givenEnv("SSH_AUTH_SOCK"), func() bool { return os.Getenv("SSH_AUTH_SOCK") != "" }),
		barred("a line of /etc/hosts", func() error { return write("/etc/hosts", "1.2.3.4 residue\n") }, contains("/etc/hosts", "residue")),
		barred("a line of /etc/resolv.conf", func() error { return write("/etc/resolv.conf", "# residue\n") }, contains("/etc/resolv.conf", "residue")),
		barred("a mount", func() error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") }, mounted("/mnt")),
		barred("a bind mount over a program", func() error { return unix.Mount("/bin/true", "/bin/sh", "", unix.MS_BIND, "") }, mounted("/bin/sh")),
		barred("a setting of the kernel", func() error { return write("/proc/sys/kernel/hostname", "residue") }, contains("/proc/sys/kernel/hostname", "residue")),
	}
}

func write(file, text string) error { return os.WriteFile(file, []byte(text), 0o600) }

func there(file string) func() bool {
	return func() bool { _, err := os.Lstat(file); return err == nil }
}

func contains(file, text string) func() bool {
	return func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(text) != "" && bytes.Contains(b, []byte(text))
	}
}

// given checks that the step was lent a thing.
func given(file string) func() error {
	return func() error { _, err := os.Lstat(file); return err }
}

func givenEnv(name string) func() error {
	return func() error {
		if os.Getenv(name) == "" {
			return os.ErrNotExist
		}
		return nil
	}
}

func mounted(at string) func() bool {
	return func() bool {
		b, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && bytes.Contains(b, []byte(" "+at+" "))
	}
}

// secretIn looks for the value of the secret in files.
func secretIn(dirs ...string) func() bool {
	return func() bool {
		found := false
		for _, dir := range dirs {
			_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return nil
				}
				b, err := os.ReadFile(path)
				found = found || err == nil && bytes.Contains(b, []byte("residue-canary"))
				return nil
			})
		}
		return found
	}
}
