package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is a workspace: it hands out directories with names as short as can
// be, since all lowers of a mount have to fit into one page. It is safe for
// concurrent use.
type Space struct {
	dir   string
	empty string // a directory that stays empty, mode 0755

	mu     sync.Mutex
	next   uint64
	merges []merge
	kept   map[string]*Kept
}

// merge is a read-only mount that stands for many lowers.
type merge struct{ base, root string }

// separators are what divides mount options and lowers.
const separators = `:,\`

// New returns a Space in dir, which must exist, be absolute and contain neither
// ':' nor ',' nor '\', the separators of mount options. No path that it hands
// out goes through a symbolic link.
func New(dir string) (*Space, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	if !filepath.IsAbs(dir) || strings.ContainsAny(dir, separators) {
		return nil, fmt.Errorf("workspace %q: not an absolute path without ':', ',' and '\\'", dir)
	}
	s := &Space{dir: dir}
	empty, err := s.Mkdir()
	if err != nil {
		return nil, err
	}
	s.empty = empty
	if err := canMark(empty); err != nil {
		return nil, err
	}
	return s, nil
}

// Opaque is the extended attribute that, with the value "y", marks an opaque
// directory in lowers and uppers. It is not Linux's default, trusted.*, which a
// process in a user namespace may not set, so that one name serves the launcher
// and the pod alike. A command can set neither name through a mounted tree.
const Opaque = "user.overlay.opaque"

// canMark fails if the workspace does not keep the attribute.
func canMark(dir string) error {
	err := unix.Lsetxattr(dir, Opaque, []byte("n"), 0)
	if err == nil {
		err = unix.Lremovexattr(dir, Opaque)
	}
	if err != nil {
		return fmt.Errorf("workspace %s cannot hold layers: set %s: %w", dir, Opaque, err)
	}
	return nil
}

// Close unmounts what stands for many lowers and what is kept. No tree of the space may be used
// after it.
func (s *Space) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, k := range s.kept {
		if k.undo != nil {
			errs = append(errs, k.undo())
		}
	}
	s.kept = nil
	for i := len(s.merges) - 1; i >= 0; i-- { // later ones lie on earlier ones
		errs = append(errs, unmount(s.merges[i].base, s.merges[i].root))
	}
	s.merges = nil
	return errors.Join(errs...)
}

// Mkdir makes a new directory, mode 0755 whatever the umask.
func (s *Space) Mkdir() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		dir := filepath.Join(s.dir, strconv.FormatUint(s.next, 36))
		s.next++
		err := os.Mkdir(dir, 0o755)
		if os.IsExist(err) {
			continue // somebody else's: the workspace need not be empty
		}
		if err != nil {
			return "", fmt.Errorf("make directory in workspace: %w", err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", fmt.Errorf("make directory in workspace: %w", err)
		}
		return dir, nil
	}
}

// Full tells whether hardly anything can be written any more. What cannot be
// measured is not full.
func (s *Space) Full() bool {
	const little = 1 << 20 // bytes
	var st unix.Statfs_t
	err := unix.Statfs(s.dir, &st)
	return err == nil && int64(st.Bavail)*st.Bsize < little
}

// Tree returns a tree of the given lowers, the lowest first; none: an empty
// tree.
func (s *Space) Tree(lowers ...string) *Tree {
	return &Tree{space: s, lowers: append([]string(nil), lowers...)}
}
