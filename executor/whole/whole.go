package whole

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	newPrefix = ".new-"
	lockName  = "lock"
)

// Create makes a file without a name of its own yet, which its maker holds. Only a
// rename before it is closed completes it.
func Create(dir string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, newPrefix) // mode 0600
		if err != nil {
			return nil, err
		}
		held, err := hold(f)
		if held {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, errors.Join(err, os.Remove(f.Name()))
		}
	}
}

// hold locks a file that was just made; false: Sweep was faster.
func hold(f *os.File) (bool, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return false, err
	}
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(own, there), err
}

// Link gives a file a second name in dir that is not its last one, and holds the
// file. The name has to be renamed before the file is closed.
func Link(file, dir string) (f *os.File, name string, err error) {
	if f, err = os.Open(file); err != nil {
		return nil, "", err
	}
	name = filepath.Join(dir, newPrefix+rand.Text())
	if err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		err = os.Link(file, name)
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return f, name, nil
}

// Write puts a small file in the place of path, which lies in dir or below it.
func Write(dir, path string, b []byte) error {
	f, err := Create(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Sweep removes what writers that died have left in a directory, if nobody has
// touched it for that long. Where locks do not reach all who write, the age says
// that nobody does.
func Sweep(dir string, age time.Duration) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if info, err := e.Info(); strings.HasPrefix(e.Name(), newPrefix) && err == nil && time.Since(info.ModTime()) >= age {
			errs = append(errs, removeDead(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// removeDead removes a file, or whatever it is, that nobody holds.
func removeDead(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case err == nil:
		defer f.Close()
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			return nil
		}
	case !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENXIO): // no writer has a link or a socket
		return nil
	}
	return os.RemoveAll(path)
}

// Locked calls f while nobody else is in a Locked of the same directory.
func Locked(dir string, f func() error) error {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("lock directory: %w", err)
	}
	defer lock.Close() // unlocks
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock directory: %w", err)
	}
	return f()
}
