package step

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// kernelDirs are mounted by the child itself before any other mount.
func kernelDirs() []string { return []string{"/dev", "/proc", "/sys"} }

// makeStubs makes, in the empty directory dir, the mount points that the stage
// seen at view lacks. As a lower directory dir then gives the merged view these
// mount points, and nothing of them is ever in the upper: parents that are there
// look as before, so that a copy of them, should the command cause one, changes
// nothing. some says that there is any.
func makeStubs(view, dir string, mounts []childMount) (some bool, err error) {
	root, err := beneath.OpenRoot(view)
	if err != nil {
		return false, err
	}
	defer unix.Close(root)
	s := stubs{view: view, dir: dir, covered: kernelDirs()}
	for _, m := range mounts {
		if err := s.add(root, m); err != nil {
			return false, fmt.Errorf("mount point %s: %w", m.Target, err)
		}
	}
	// From the innermost out: making something in a directory changes its time.
	slices.SortFunc(s.cloned, func(a, b string) int { return len(b) - len(a) })
	for _, rel := range s.cloned {
		if err := rootfs.CopyAttributes(filepath.Join(view, rel), filepath.Join(dir, rel)); err != nil {
			return false, err
		}
	}
	return s.some, nil
}

type stubs struct {
	view, dir string
	covered   []string // where something is mounted: nothing below it is of the stage
	cloned    []string // directories that the stage has too, relative
	some      bool
}

// add makes one mount point if it is missing.
func (s *stubs) add(root int, m childMount) error {
	at, err := beneath.Resolve(root, m.Target)
	if err != nil {
		return err
	}
	defer at.Close()
	name := at.Name()
	if name == "/" {
		return errors.New("the root cannot be a mount point")
	}
	if slices.ContainsFunc(s.covered, func(c string) bool { return strings.HasPrefix(name+"/", c+"/") }) {
		return nil // the child makes it in what is mounted there
	}
	s.covered = append(s.covered, name)
	switch {
	case len(at.Rest) == 0 && at.IsDir() != m.isDir():
		if m.isDir() {
			return unix.ENOTDIR
		}
		return unix.EISDIR
	case len(at.Rest) == 0:
		return nil
	}
	s.some = true
	if err := s.clone(at.Path); err != nil {
		return err
	}
	return s.make(at.Path, at.Rest, m.isDir())
}

// clone makes the directory rel of the stage in s.dir too, with its parents.
func (s *stubs) clone(rel string) error {
	all := []string{""}
	for i, c := range rel {
		if c == '/' {
			all = append(all, rel[:i])
		}
	}
	if rel != "" {
		all = append(all, rel)
	}
	for _, p := range all {
		if slices.Contains(s.cloned, p) {
			continue
		}
		if p != "" {
			if err := os.Mkdir(filepath.Join(s.dir, p), 0o700); err != nil {
				return err
			}
		}
		s.cloned = append(s.cloned, p)
	}
	return nil
}

// make makes what the stage lacks below its directory rel. Another mount point
// may have brought parts of it.
func (s *stubs) make(rel string, missing []string, dir bool) error {
	p := filepath.Join(s.dir, rel)
	for i, name := range missing {
		p = filepath.Join(p, name)
		if i < len(missing)-1 || dir {
			if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			if err := os.Chmod(p, 0o755); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
