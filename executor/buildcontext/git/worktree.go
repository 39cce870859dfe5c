package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// worktree writes the files of a commit. Everything is created, nothing opened
// that was there before: a name that a tree has twice, once as a link and once as
// a directory, fails and leads nowhere.
type worktree struct {
	*visit
	src  *source
	keep *keeper // nil: without .git
}

// folder is a directory that is being written.
type folder struct {
	fd    int
	path  string // in the repository
	depth int    // below the one that was wanted
	attrs *attributes
}

// write writes the tree i to a directory, which is open and empty.
func (w *worktree) write(ctx context.Context, i id, d folder) error {
	if err := w.tree(ctx, i, d); err != nil {
		return err
	}
	if w.keep == nil {
		return nil
	}
	return w.keep.write(w.src.found, w.src.url)
}

func (w *worktree) tree(ctx context.Context, i id, d folder) error {
	if d.depth > w.limits.nesting {
		return fmt.Errorf("%s: directories in more than %d directories", d.path, w.limits.nesting)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	list, err := w.src.pack.readTree(i)
	if err != nil {
		return err
	}
	if d.attrs, err = w.src.pack.within(d.attrs, d.path, list); err != nil {
		return err
	}
	// All of them count at once: the list is held while the directories in it
	// are written, and so are the lists of those.
	if w.files += len(list); w.files > w.limits.files {
		return fmt.Errorf("more than %d files", w.limits.files)
	}
	for _, e := range list {
		if err := checkName(e); err != nil {
			return err
		}
	}
	for _, e := range list {
		if err := w.entry(ctx, e, d); err != nil {
			return pathError(path.Join(d.path, e.name), err)
		}
	}
	return nil
}

// pathError names the path once.
func pathError(name string, err error) error {
	var known *os.PathError
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return &os.PathError{Op: "check out", Path: name, Err: err}
}

func (w *worktree) entry(ctx context.Context, e entry, d folder) error {
	name := path.Join(d.path, e.name)
	switch e.mode & modeType {
	case modeDir:
		return w.dir(e.name, d.fd, func(fd int) error { return w.tree(ctx, e.id, folder{fd, name, d.depth + 1, d.attrs}) })
	case modeRepo:
		return w.dir(e.name, d.fd, func(fd int) error { return w.module(ctx, e, fd, name) })
	case modeLink:
		return w.link(e, d.fd, name)
	case modeFile:
		return w.file(e, d)
	}
	return fmt.Errorf("mode %o is none of git's", e.mode)
}

// dir makes a directory and lets fill do the rest.
func (w *worktree) dir(name string, parent int, fill func(fd int) error) error {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil {
		return err
	}
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return err
	}
	if err := fill(fd); err != nil {
		return err
	}
	return w.touch(fd, "")
}

func (w *worktree) file(e entry, d folder) error {
	at, ok := w.src.pack.find(e.id)
	if !ok || w.src.pack.objects[at].kind != blobKind {
		return fmt.Errorf("the server did not send blob %s", w.src.pack.format.hex(e.id))
	}
	if w.written += w.src.pack.objects[at].size; w.written > w.limits.written {
		return fmt.Errorf("more than %d bytes of files", w.limits.written)
	}
	perm := uint32(0o644)
	if e.mode&0o100 != 0 {
		perm = 0o755
	}
	fd, err := unix.Openat(d.fd, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.name)
	defer f.Close()
	name := path.Join(d.path, e.name)
	if err := w.fill(f, at, d.attrs.endings(name)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, perm); err != nil {
		return err
	}
	if err := w.touch(fd, ""); err != nil {
		return err
	}
	if err := w.tell(name, e, fd, ""); err != nil {
		return err
	}
	return f.Close()
}

// fill writes what a blob holds.
func (w *worktree) fill(f *os.File, blob int32, end endings) error {
	if end == crlfIfText {
		r, err := w.src.pack.open(blob)
		if err != nil {
			return err
		}
		guess := &looksLikeText{}
		if _, err := io.CopyBuffer(guess, struct{ io.Reader }{r}, w.buf); err != nil {
			return err
		}
		end = asStored
		if guess.yes() {
			end = crlf
		}
	}
	r, err := w.src.pack.open(blob)
	if err != nil {
		return err
	}
	if end == asStored {
		_, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, w.buf)
		return err
	}
	out := bufio.NewWriterSize(f, 64<<10)
	if _, err := io.CopyBuffer(&crlfWriter{w: out}, struct{ io.Reader }{r}, w.buf); err != nil {
		return err
	}
	return out.Flush()
}

func (w *worktree) link(e entry, dir int, name string) error {
	target, err := w.src.pack.read(e.id, blobKind)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(target), dir, e.name); err != nil {
		return err
	}
	if err := w.touch(dir, e.name); err != nil {
		return err
	}
	return w.tell(name, e, dir, e.name)
}

// openDir opens a directory that was made here. Links are not followed: with
// O_NOFOLLOW alone gVisor does.
func openDir(parent int, name string) (int, error) {
	return unix.Openat2(parent, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// touch gives what fd, or name in it, is the time that all files get.
func (v *visit) touch(fd int, name string) error {
	if v.time == nil {
		return nil
	}
	ts, err := unix.TimeToTimespec(*v.time)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

// tell notes a file for the index.
func (w *worktree) tell(path string, e entry, fd int, name string) error {
	if w.keep == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	w.keep.entries = append(w.keep.entries, indexed{path, e.mode, e.id, st})
	return nil
}

// maxName is the longest name that a file can have, in bytes.
const maxName = 255

// checkName refuses names that no worktree may have: what is no name in a
// directory, and what git would take for its own.
func checkName(e entry) error {
	if len(e.name) > maxName {
		return &os.PathError{Op: "check out", Path: e.name[:maxName] + "...", Err: unix.ENAMETOOLONG}
	}
	lower := strings.ToLower(e.name)
	switch {
	case e.name == "" || e.name == "." || e.name == ".." || strings.ContainsAny(e.name, "/\x00"),
		lower == ".git",
		lower == ".gitmodules" && e.mode&modeType == modeLink:
		return fmt.Errorf("invalid path %q", e.name)
	}
	return nil
}
