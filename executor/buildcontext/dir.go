package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// maxIgnoreFile is the largest ignore file, in bytes.
const maxIgnoreFile = 8 << 20

// Context is a directory with an ignore file. It is safe for concurrent use.
type Context struct {
	// Root is the directory.
	Root string
	// Patterns are those of the ignore file.
	Patterns []string

	ignore *take.Ignore // nil: nothing is ignored
}

// Open opens the context in dir. ignoreFile is the file with patterns of what is
// not part of the context; empty: everything is. If it lies in dir, links are
// followed within dir only.
func Open(dir, ignoreFile string) (*Context, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	c := &Context{Root: dir}
	if ignoreFile == "" {
		return c, nil
	}
	c.Patterns, err = readIgnoreFile(dir, ignoreFile)
	if err == nil {
		c.ignore, err = take.NewIgnore(c.Patterns)
	}
	if err != nil {
		return nil, fmt.Errorf("ignore file %s: %w", filepath.Base(ignoreFile), err)
	}
	return c, nil
}

// Excluded says whether the ignore file hides a path, given relative to Root
// with slashes. With dir set it says whether the path is hidden with everything
// below it; without, a directory may be hidden that holds files which are not,
// because a pattern with "!" brings them back. Such a directory is then part of
// the context after all.
func (c *Context) Excluded(rel string, dir bool) (bool, error) {
	return c.ignore.Excluded(rel, dir)
}

func readIgnoreFile(dir, name string) ([]string, error) {
	f, err := openIgnoreFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if st.Size() > maxIgnoreFile {
		return nil, fmt.Errorf("exceeds %d bytes", maxIgnoreFile)
	}
	return ignorefile.ReadAll(io.LimitReader(f, maxIgnoreFile))
}

func openIgnoreFile(dir, name string) (*os.File, error) {
	// Not blocking: it could be a FIFO.
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	rel, err := filepath.Rel(dir, name)
	if err != nil || !filepath.IsLocal(rel) {
		return os.OpenFile(name, flags, 0)
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Not os.Root: gVisor follows links where that relies on O_NOFOLLOW.
	fd, err := unix.Openat2(int(root.Fd()), rel, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		err = errors.New("leads out of the context")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	return os.NewFile(uintptr(fd), rel), nil
}
