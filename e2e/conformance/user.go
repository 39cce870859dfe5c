package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// someone is an ordinary user: a number that no user of the machine has, so
// without a name, groups, subordinate ids or a home of its own.
const someone = 60606

// asSomeone returns o as an ordinary user, with copies of its programs where he
// can reach them.
func (o ours) asSomeone(dir string) (ours, error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return o, err
	}
	from := filepath.Dir(o.bin)
	to := filepath.Join(dir, "bin")
	if err := os.Mkdir(to, 0o755); err != nil {
		return o, err
	}
	for _, name := range []string{"kbuild-sandbox", "kbuild-executor", "runsc"} {
		if err := copyProgram(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return o, err
		}
	}
	return ours{bin: filepath.Join(to, filepath.Base(o.bin)), as: &syscall.Credential{Uid: someone, Gid: someone}}, nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// give makes everything in a directory a user's. Modes stay: a change of the
// owner takes set-id bits away.
func give(dir string, to *syscall.Credential) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Lchown(path, int(to.Uid), int(to.Gid)); err != nil {
			return err
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 || !info.Mode().IsRegular() {
			return nil
		}
		return os.Chmod(path, info.Mode())
	})
}
