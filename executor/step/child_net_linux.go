package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// loopback are the files of /sys/class/net/lo.
func loopback() map[string]string {
	return map[string]string{
		"address": "00:00:00:00:00:00\n", "ifindex": "1\n", "mtu": "65536\n", "operstate": "unknown\n", "type": "772\n",
	}
}

// showNoNetwork shows a command without network the loopback interface where it
// looks for it: gVisor has no /sys/class/net.
func (c *childConfig) showNoNetwork(root int) error {
	if !c.NoNetwork {
		return nil
	}
	if err := showLoopback(root); err != nil {
		return fmt.Errorf("/sys/class/net: %w", err)
	}
	return nil
}

// showLoopback covers /sys/class by a directory that has what was there, empty
// as it was, and net/lo.
func showLoopback(root int) error {
	class, err := openTarget(root, "/sys/class")
	if err != nil {
		return err
	}
	defer unix.Close(class)
	list, err := beneath.Openat(class, ".", beneath.OpenDir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(list)
	entries, err := beneath.ReadDir(list, "sys/class")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name == "net" {
			return nil
		}
	}
	if err := fresh("tmpfs", nosuidNodevNoexec, "mode=755").at(root, "/sys/class"); err != nil {
		return err
	}
	covered, err := openTarget(root, "/sys/class")
	if err != nil {
		return err
	}
	defer unix.Close(covered)
	for _, e := range entries {
		if err := unix.Mkdirat(covered, e.Name, 0o755); err != nil {
			return &fs.PathError{Op: "mkdir", Path: e.Name, Err: err}
		}
	}
	if err := mkdirs(covered, []string{"net", "lo"}); err != nil {
		return err
	}
	lo, err := openTarget(root, "/sys/class/net/lo")
	if err != nil {
		return err
	}
	defer unix.Close(lo)
	if err := writeTexts(lo, loopback()); err != nil {
		return err
	}
	return remountReadOnly(root, "/sys/class")
}

// writeTexts makes files, mode 0444.
func writeTexts(dir int, texts map[string]string) error {
	for name, text := range texts {
		fd, err := beneath.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return &fs.PathError{Op: "create", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
