package main

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// epoch is the modification time of what says no other: 2020-01-01T00:00:00Z.
const epoch = 1577836800

// layOut writes a case's files to dir, with the owners, modes and times of the
// suite's README, and the placeholders in its Dockerfile replaced.
func (c *testCase) layOut(dir string, place *strings.Replacer) error {
	if err := os.MkdirAll(filepath.Join(dir, "context"), 0o755); err != nil {
		return err
	}
	for _, f := range c.Files {
		data := f.Data
		if f.Name == c.Opts.Dockerfile {
			data = []byte(place.Replace(string(data)))
		}
		if err := writeFile(filepath.Join(dir, f.Name), data); err != nil {
			return err
		}
	}
	for _, f := range c.Opts.Files {
		if f.Path == c.Opts.Dockerfile {
			f = f.replaced(place)
		}
		if err := f.create(dir); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if err := defaults(dir); err != nil {
		return err
	}
	// A change in a directory changes its time: so times come last, and
	// every file's attributes after the defaults.
	for _, f := range c.Opts.Files {
		if err := f.attributes(dir); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return nil
}

func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// replaced is the file with the placeholders in its content replaced.
func (f extraFile) replaced(place *strings.Replacer) extraFile {
	if f.Text != nil {
		text := place.Replace(*f.Text)
		f.Text = &text
	}
	if f.Base64 != nil {
		f.Base64 = []byte(place.Replace(string(f.Base64)))
	}
	return f
}

func (f extraFile) create(dir string) error {
	name := filepath.Join(dir, f.Path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch {
	case f.Text != nil:
		return os.WriteFile(name, []byte(*f.Text), 0o644)
	case f.Base64 != nil:
		return os.WriteFile(name, f.Base64, 0o644)
	case f.Symlink != "":
		return os.Symlink(f.Symlink, name)
	case f.Hardlink != "":
		return os.Link(filepath.Join(dir, f.Hardlink), name)
	case f.Dir:
		return os.MkdirAll(name, 0o755)
	case f.Fifo:
		return unix.Mkfifo(name, 0o644)
	}
	_, err := os.Lstat(name)
	return err
}

// defaults gives everything the owner, mode and time of files that say nothing.
func defaults(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		if d.Type() != fs.ModeSymlink {
			if err := os.Chmod(name, mode); err != nil {
				return err
			}
		}
		if err := os.Lchown(name, 0, 0); err != nil {
			return err
		}
		return setTime(name, epoch)
	})
}

func (f extraFile) attributes(dir string) error {
	name := filepath.Join(dir, f.Path)
	if f.UID != 0 || f.GID != 0 {
		if err := os.Lchown(name, f.UID, f.GID); err != nil {
			return err
		}
	}
	if f.Mode != "" {
		mode, err := strconv.ParseUint(f.Mode, 8, 12)
		if err != nil {
			return err
		}
		if err := unix.Chmod(name, uint32(mode)); err != nil { // os.Chmod knows no 04000
			return err
		}
	}
	for k, v := range f.Xattrs {
		b, err := hex.DecodeString(v)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(name, k, b, 0); err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	if f.MTime != nil {
		return setTime(name, *f.MTime)
	}
	return nil
}

func setTime(name string, sec int64) error {
	t := unix.NsecToTimespec(time.Unix(sec, 0).UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}
