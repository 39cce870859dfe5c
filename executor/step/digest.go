package step

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// Digest is the SHA-256 of what a copy takes from its source: copies with the same
// digest, of the same operation, make the same files. Of each it covers the name,
// type, mode, contents and what it is linked with; of a stage's also the owner and
// the extended attributes. Times do not count, as with BuildKit: every checkout has
// new ones. Sources that are not there fail as in the copy.
//
// It is empty for a source that is no tree of files: URLs and here-documents.
func Digest(ctx context.Context, op *plan.Copy, env Env) (sum [sha256.Size]byte, err error) {
	if len(op.Paths) == 0 {
		return sum, nil
	}
	src, release, err := source(ctx, op.From, env)
	if err != nil {
		return sum, err
	}
	sum, err = digest(ctx, op, src)
	return sum, errors.Join(err, release())
}

func digest(ctx context.Context, op *plan.Copy, src Source) (sum [sha256.Size]byte, err error) {
	c := &copier{root: -1, src: -1, hidden: src.Excluded, stage: src.stage}
	if c.src, err = openRoot(src.Root); err != nil {
		return sum, err
	}
	defer c.close()
	if c.filter, err = newFilter(op.Exclude); err != nil {
		return sum, err
	}
	if c.mode, err = parseChmod(op.Chmod); err != nil {
		return sum, err
	}
	d := &digester{c: c, owned: src.stage && op.Chown == "", links: map[inode]int{}, sum: sha256.New()}
	for _, p := range op.Paths {
		if err := d.path(ctx, op, p); err != nil {
			return sum, err
		}
	}
	return [sha256.Size]byte(d.sum.Sum(nil)), nil
}

// digester walks what a copier would copy.
type digester struct {
	c     *copier
	owned bool // owners count
	links map[inode]int
	sum   hash.Hash
	files int
}

// path adds what one source argument names.
func (d *digester) path(ctx context.Context, op *plan.Copy, p string) (err error) {
	d.put("p", p)
	f := d.c.filter
	if op.Parents {
		if p, _, err = f.parents(p); err != nil {
			return err
		}
	}
	found, err := d.c.expand(p)
	if err != nil {
		return err
	}
	for _, name := range found {
		if err := d.one(ctx, name, f); err != nil {
			return err
		}
	}
	return nil
}

func (d *digester) one(ctx context.Context, name string, f filter) error {
	at, err := d.c.lookup(name)
	if err != nil {
		return err
	}
	defer at.close()
	w := &digestWalk{d: d, t: &treeCopy{c: d.c, filter: f}, dirs: fileDigester{stage: d.c.stage}}
	n := &node{src: at.fd, srcRel: at.path}
	if at.isDir() {
		d.put("d", "") // only what it holds counts
		return w.dir(ctx, n)
	}
	return w.files(ctx, n, []entry{{name: at.leaf, to: base(name)}})
}

// put adds texts, each with its length.
func (d *digester) put(texts ...string) {
	var b []byte
	for _, t := range texts {
		b = append(binary.AppendUvarint(b, uint64(len(t))), t...)
	}
	d.sum.Write(b)
}

// digestWalk walks one tree.
type digestWalk struct {
	d    *digester
	t    *treeCopy // judges
	dirs fileDigester
}

// dir adds what is in the open directory of n.
func (w *digestWalk) dir(ctx context.Context, n *node) error {
	entries, err := readDir(n.src, n.srcRel)
	if err != nil {
		return err
	}
	var dirs []*node
	files := entries[:0]
	for _, e := range entries {
		take, sub, err := w.t.judge(n, e)
		switch {
		case err != nil:
			return err
		case sub != nil:
			sub.lazy = !take
			dirs = append(dirs, sub)
		case take:
			files = append(files, e)
		}
	}
	if err := w.files(ctx, n, files); err != nil {
		return err
	}
	for _, sub := range dirs {
		if err := w.enter(ctx, n, sub); err != nil {
			return err
		}
	}
	return nil
}

// enter adds a directory and what is in it. One that is made only for what it holds
// is named by that.
func (w *digestWalk) enter(ctx context.Context, n, sub *node) error {
	fd, err := openat(n.src, base(sub.srcRel), openDir, 0)
	if err == nil {
		sub.src = fd
		defer unix.Close(fd)
		err = unix.Fstat(fd, &sub.st)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + sub.srcRel, Err: err}
	}
	kind := "d"
	if sub.lazy {
		kind = "l"
	}
	attrs, err := w.dirs.xattrs(fd)
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: "/" + sub.srcRel, Err: err}
	}
	w.d.put(kind, sub.sub, w.d.attributes(&sub.st), attrs)
	return w.dir(ctx, sub)
}

// attributes are those of a file that its copy gets.
func (d *digester) attributes(st *unix.Stat_t) string {
	s := fmt.Sprintf("%o", d.c.modeOf(st)|st.Mode&unix.S_IFMT)
	if d.owned {
		s += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
	}
	return s
}

// digested is what is known of one file.
type digested struct {
	st      unix.Stat_t
	content string // of a regular file its hash, of a link its target
	xattrs  string
}

// files adds files of one directory, in their order; they are read at once.
func (w *digestWalk) files(ctx context.Context, n *node, files []entry) error {
	found := make([]digested, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyWorkers())
	for start := 0; start < len(files); start += copyBatch {
		g.Go(func() error {
			r := &fileDigester{stage: w.d.c.stage, buf: make([]byte, oneCall)}
			for i := start; i < min(start+copyBatch, len(files)); i++ {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := r.file(n.src, files[i].name, &found[i]); err != nil {
					return &fs.PathError{Op: "read", Path: "/" + path.Join(n.srcRel, files[i].name), Err: err}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, e := range files {
		f := &found[i]
		w.d.put("f", path.Join(n.sub, cmp.Or(e.to, e.name)), w.d.attributes(&f.st), f.content, f.xattrs, w.d.link(&f.st))
	}
	return nil
}

// link numbers files that have several names: which of them are one counts.
func (d *digester) link(st *unix.Stat_t) string {
	d.files++
	if st.Nlink < 2 {
		return ""
	}
	id := inode{uint64(st.Dev), st.Ino}
	if d.links[id] == 0 {
		d.links[id] = d.files
		return ""
	}
	return fmt.Sprint(d.links[id])
}

// fileDigester reads files, one at a time.
type fileDigester struct {
	stage bool
	buf   []byte
	attrs attrReader
}

func (r *fileDigester) file(dir int, name string, f *digested) error {
	if err := unix.Fstatat(dir, name, &f.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := readlinkat(dir, name)
		f.content = target
		return err
	case unix.S_IFCHR, unix.S_IFBLK:
		f.content = fmt.Sprint(f.st.Rdev)
		return nil
	case unix.S_IFREG:
	default:
		return nil
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), name)
	defer in.Close()
	sum := sha256.New()
	if _, err := io.CopyBuffer(onlyWriter{sum}, onlyReader{in}, r.buf); err != nil {
		return err
	}
	f.content = string(sum.Sum(nil))
	f.xattrs, err = r.xattrs(fd)
	return err
}

// onlyReader and onlyWriter have no other ways to be copied: the buffer is used.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// xattrs are the extended attributes that a copy keeps, sorted.
func (r *fileDigester) xattrs(fd int) (string, error) {
	if !r.stage {
		return "", nil
	}
	var list []string
	err := r.attrs.each(fd, func(name string, value []byte) error {
		list = append(list, fmt.Sprintf("%s=%x\n", name, value))
		return nil
	})
	slices.Sort(list)
	return strings.Join(list, ""), err
}
