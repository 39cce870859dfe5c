package step

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// stageSecrets mounts the tmpfs that secrets are written to, over a directory
// of the workspace and in the child's own mount namespace: nobody else ever sees
// it, and the command sees the files that are bound from it, nothing else. It
// lies in memory and goes with the last process of the command.
func (c *childConfig) stageSecrets() error {
	if c.Staging == "" {
		return nil
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_SYMLINKS}
	var dir int
	err := beneath.Retry(func() (err error) { dir, err = unix.Openat2(unix.AT_FDCWD, c.Staging, how); return err })
	if err != nil {
		return fmt.Errorf("directory for secrets: %w", err)
	}
	defer unix.Close(dir)
	if err := unix.Mount("tmpfs", descriptor(dir), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		return fmt.Errorf("tmpfs for secrets: %w", err)
	}
	return nil
}

// mountSecret writes the nth mount's secret and binds it, read-only.
func (c *childConfig) mountSecret(root, n int, m childMount) error {
	file := filepath.Join(c.Staging, strconv.Itoa(n))
	if err := m.Secret.write(file); err != nil {
		return fmt.Errorf("secret %s: %w", m.Target, err)
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if m.Secret.Mode&0o111 == 0 {
		flags |= unix.MS_NOEXEC
	}
	return bindAt(root, file, m.Target, flags)
}

func (s *secretFile) write(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(s.Data)
	if err == nil {
		err = f.Chown(int(s.UID), int(s.GID))
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), s.Mode)
	}
	return errors.Join(err, f.Close())
}
