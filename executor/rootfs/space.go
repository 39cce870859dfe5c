package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Space is a workspace: it hands out directories with names as short as can
// be, since all lowers of a mount have to fit into one page. It is safe for
// concurrent use.
type Space struct {
	dir   string
	empty string // a directory that stays empty, mode 0755

	mu   sync.Mutex
	next uint64
}

// New returns a Space in dir, which must exist, be absolute and contain neither
// ':' nor ',' nor '\', the separators of mount options.
func New(dir string) (*Space, error) {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) || strings.ContainsAny(dir, `:,\`) {
		return nil, fmt.Errorf("workspace %q: not an absolute path without ':', ',' and '\\'", dir)
	}
	s := &Space{dir: dir}
	empty, err := s.Mkdir()
	if err != nil {
		return nil, err
	}
	s.empty = empty
	return s, nil
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

// Tree returns a tree of the given lowers, the lowest first; none: an empty
// tree.
func (s *Space) Tree(lowers ...string) *Tree {
	return &Tree{space: s, lowers: append([]string(nil), lowers...)}
}
