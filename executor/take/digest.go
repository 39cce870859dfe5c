package take

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// batch is how many files of one directory are read one after the other.
	batch = 32
	// buffer is read at once, in bytes.
	buffer = 64 << 10
)

// Workers is how many files are read at once: opening a file on a host mount takes
// its time, but more threads than processors cost more in gVisor than they win.
func Workers() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

func (c Care) workers() int {
	if c.Single {
		return 1
	}
	return Workers()
}

// Digest is the SHA-256 of what a selection takes from a source: copies with the same
// digest, of the same operation, make the same files. Of each it covers the name,
// type, mode, contents and what it is linked with; of a stage's also the owner and
// the extended attributes. Times do not count, as with BuildKit: every checkout has
// new ones. Sources that are not there fail as in the copy.
//
// It is empty for a source that is no tree of files: URLs and here-documents.
func Digest(ctx context.Context, src Source, sel request.Selection, care Care) (sum [sha256.Size]byte, err error) {
	if len(sel.Paths) == 0 {
		return sum, nil
	}
	f, err := openWith(src, sel, true, care)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	for _, p := range sel.Paths {
		a, err := f.Argument(ctx, p)
		if err != nil {
			return sum, err
		}
		for _, name := range a.Names {
			f.Begin(name)
			if err := a.digest(ctx, name); err != nil {
				return sum, err
			}
		}
	}
	return f.Sum(), nil
}

// digest adds what one name leads to.
func (a Argument) digest(ctx context.Context, name string) error {
	at, err := a.Lookup(ctx, name)
	if err != nil {
		return err
	}
	defer at.Close()
	d := &Dir{FD: at.FD, Rel: at.Path}
	if at.IsDir() {
		return a.walk(ctx, d) // only what it holds counts
	}
	d.Single = true
	return a.files(ctx, d, []beneath.Entry{{Name: at.Leaf}})
}

// walk adds what is in an open directory.
func (a Argument) walk(ctx context.Context, d *Dir) error {
	files, dirs, err := a.List(ctx, d)
	if err != nil {
		return err
	}
	if err := a.files(ctx, d, files); err != nil {
		return err
	}
	for _, sub := range dirs {
		if err := a.enter(ctx, d, sub); err != nil {
			return err
		}
	}
	return nil
}

// enter adds a directory and what is in it.
func (a Argument) enter(ctx context.Context, parent, d *Dir) error {
	err := a.Enter(parent, d)
	if d.FD >= 0 {
		defer unix.Close(d.FD)
	}
	t := a.dir(d)
	if err == nil {
		err = a.stage(&t, new(Attributes), d.FD, &d.Stat)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + d.Rel, Err: err}
	}
	a.content.add(t)
	return a.walk(ctx, d)
}

// files adds files of one directory; they are read at once.
func (a Argument) files(ctx context.Context, d *Dir, files []beneath.Entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(a.care.workers())
	for some := range slices.Chunk(files, batch) {
		g.Go(func() error {
			r := &reader{Files: a.Files}
			for _, e := range some {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := r.file(ctx, d, e); err != nil {
					return &fs.PathError{Op: "read", Path: "/" + path.Join(d.Rel, e.Name), Err: err}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// reader reads files, one at a time.
type reader struct {
	*Files
	buf   []byte
	attrs Attributes
}

func (r *reader) file(ctx context.Context, d *Dir, e beneath.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.FD, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	fd, data, err := -1, "", error(nil)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK: // is not copied
		return nil
	case unix.S_IFLNK:
		data, err = beneath.Readlinkat(d.FD, e.Name)
	case unix.S_IFREG:
		if sum, ok := r.known(&st); ok {
			data = string(sum[:])
			break
		}
		fd, data, err = r.open(ctx, d, e, &st)
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err != nil {
		return err
	}
	t := r.Files.file(d, e, &st, data)
	if err := r.stage(&t, &r.attrs, fd, &st); err != nil {
		return err
	}
	r.content.add(t)
	return nil
}

// known is what somebody remembers of a file; of a stage's nobody does.
func (r *reader) known(st *unix.Stat_t) (sum [32]byte, ok bool) {
	if r.care.Hashes == nil {
		return sum, false
	}
	return r.care.Hashes.Known(st)
}

// open opens and hashes a regular file. What has taken its place meanwhile is not
// waited for.
func (r *reader) open(ctx context.Context, d *Dir, e beneath.Entry, st *unix.Stat_t) (fd int, data string, err error) {
	fd, err = r.openFile(d.FD, e.Name)
	if err == nil {
		err = unix.Fstat(fd, st)
	}
	switch {
	case err != nil:
		return fd, "", err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fd, "", errors.New("is no longer a regular file")
	}
	from := time.Now()
	sum, err := r.hash(ctx, fd)
	if err == nil && r.care.Hashes != nil {
		var after unix.Stat_t
		if unix.Fstat(fd, &after) == nil && after.Size == st.Size && after.Mtim == st.Mtim && after.Ctim == st.Ctim {
			r.care.Hashes.Learn(st, from, sum)
		}
	}
	return fd, string(sum[:]), err
}

// openFile opens a file to be read: no link, no device that would be waited for.
func (f *Files) openFile(dir int, name string) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if !f.careful() {
		return beneath.Openat(dir, name, flags, 0)
	}
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH}
	err = beneath.Retry(func() (err error) { fd, err = unix.Openat2(dir, name, &how); return err })
	return fd, err
}

func (r *reader) hash(ctx context.Context, fd int) (out [sha256.Size]byte, err error) {
	if r.buf == nil {
		r.buf = make([]byte, buffer)
	}
	sum := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		n := 0
		err := beneath.Retry(func() (err error) { n, err = unix.Read(fd, r.buf); return err })
		if err != nil {
			return out, err
		}
		if n == 0 {
			return [sha256.Size]byte(sum.Sum(out[:0])), nil
		}
		sum.Write(r.buf[:n])
	}
}

// stage adds what a copy from a stage keeps: the owner, and, of an open file, its
// extended attributes.
func (f *Files) stage(t *taken, attrs *Attributes, fd int, st *unix.Stat_t) error {
	if f.Owners {
		t.about += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
	}
	if !f.Stage || fd < 0 {
		return nil
	}
	var list []string
	err := attrs.Each(fd, func(name string, value []byte) error {
		list = append(list, fmt.Sprintf(" %q=%x", name, value))
		return nil
	})
	slices.Sort(list)
	t.about += strings.Join(list, "")
	return err
}
