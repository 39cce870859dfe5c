package take

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Source is a tree of files to copy from.
type Source struct {
	// Root is the directory; nothing above it is ever read.
	Root string
	// Excluded says whether an ignore file hides a path, given relative to Root
	// with slashes and without a leading one; nil: nothing is hidden.
	// With dir set it says that nothing below the path is to be seen either;
	// without, a directory may be hidden that holds files which are not. The
	// directory is then there if one of them is.
	Excluded func(rel string, dir bool) (bool, error)
	// Patterns are those behind Excluded.
	Patterns []string
	// Stage: extended attributes are kept, and Owners are, too, unless others are
	// set.
	Stage, Owners bool
}

// Care is what a walk needs where no sandbox bounds it. It stays in one mount. The
// zero value asks for none.
type Care struct {
	// Deepest is how many directories may lie in each other; 0: any number.
	Deepest int
	// Pay is called before about n bytes of memory are taken, and may refuse.
	Pay func(ctx context.Context, n int) error
	// Hashes remembers the hashes of files; nil: nobody does.
	Hashes Hashes
	// Single says that files are read one at a time.
	Single bool
}

// Hashes remembers the hashes of regular files. It is safe for concurrent use.
type Hashes interface {
	// Known returns the hash of a file that has not changed since.
	Known(st *unix.Stat_t) (sum [32]byte, ok bool)
	// Learn takes the hash of a file that was read from a time on, and is still as it
	// was then.
	Learn(st *unix.Stat_t, from time.Time, sum [32]byte)
}

// Files are those that a selection can take of a source.
type Files struct {
	Source
	Mode *Mode // nil: as the source

	root    int // -1: there is no source
	filter  filter
	parents bool
	content *content // gets what is taken; nil: nobody does
	care    Care
	cost    int // of keeping what is known of a file beside its path, in bytes
}

// Open opens a source. If collect is set, Sum is what was Taken.
func Open(src Source, sel request.Selection, collect bool) (*Files, error) {
	return openWith(src, sel, collect, Care{})
}

func openWith(src Source, sel request.Selection, collect bool, care Care) (f *Files, err error) {
	f = &Files{Source: src, root: -1, parents: sel.Parents, care: care, cost: entryCost + len(src.Patterns) + len(sel.Exclude)}
	if collect {
		f.content = &content{}
	}
	if f.Mode, err = ParseMode(sel.Chmod); err != nil {
		return nil, err
	}
	if f.filter, err = newFilter(sel.Exclude); err != nil {
		return nil, err
	}
	// Without a source there may still be here-documents and URLs.
	if len(sel.Paths) == 0 {
		return f, nil
	}
	f.root, err = beneath.OpenRoot(src.Root)
	return f, err
}

// Close lets go of the source.
func (f *Files) Close() {
	if f.root >= 0 {
		unix.Close(f.root)
		f.root = -1
	}
}

// Argument is what one source argument names.
type Argument struct {
	*Files
	// Names are absolute within the source. Without wildcards that is the argument
	// itself, there or not. Matches are sorted; there may be none.
	Names []string
	// Required has to be found; empty: nothing has.
	Required string

	filter filter
}

// Argument finds what an argument names.
func (f *Files) Argument(ctx context.Context, p string) (a Argument, err error) {
	a = Argument{Files: f, filter: f.filter}
	if f.parents {
		if p, a.Required, err = a.filter.parents(p); err != nil {
			return a, err
		}
	}
	a.Names, err = f.expand(ctx, p)
	return a, err
}

// Begin is about what is taken next: the files of one of the names.
func (f *Files) Begin(name string) { f.content.begin(name) }

// Dir is a directory that is walked.
type Dir struct {
	FD   int    // open; -1 until then
	Rel  string // below the source's root
	Sub  string // below the directory that is taken
	Stat unix.Stat_t
	// Lazy: it is taken when something in it is, not before.
	Lazy bool
	// Wanted: it is taken for itself, not only as the parent of something.
	Wanted bool
	// Single: it is there for one file, that was named itself.
	Single bool

	matches matches
}

// below is where an entry lies below the directory that is taken; empty: it is what
// was named itself.
func (d *Dir) below(e beneath.Entry) string {
	if d.Single {
		return ""
	}
	return path.Join(d.Sub, e.Name)
}

// List splits what is taken of the open directory d: files, and directories that have
// to be looked into, which are not open yet.
func (a Argument) List(ctx context.Context, d *Dir) (files []beneath.Entry, dirs []*Dir, err error) {
	entries, err := a.list(ctx, d.FD, d.Rel)
	if err != nil {
		return nil, nil, err
	}
	files = entries[:0]
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		take, sub, err := a.judge(d, e)
		switch {
		case err != nil:
			return nil, nil, err
		case sub != nil:
			sub.Lazy = !take
			dirs = append(dirs, sub)
		case take:
			files = append(files, e)
		}
	}
	return files, dirs, nil
}

// judge says whether an entry is taken; for a directory that has to be looked
// into it returns that.
func (a Argument) judge(d *Dir, e beneath.Entry) (take bool, sub *Dir, err error) {
	dir := e.Type == unix.S_IFDIR
	rel := path.Join(d.Rel, e.Name)
	if dir {
		if all, err := a.hides(rel, true); err != nil || all {
			return false, nil, err
		}
	}
	hide, err := a.hides(rel, false)
	if err != nil || hide && !dir {
		return false, nil, err
	}
	below := path.Join(d.Sub, e.Name)
	wanted, inside, m, err := a.filter.judge(below, d.matches)
	switch {
	case err != nil:
		return false, nil, err
	case !dir:
		// A socket means nothing without the process that listens.
		return wanted && e.Type != unix.S_IFSOCK, nil, nil
	case !wanted && !inside:
		return false, nil, nil
	}
	return wanted && !hide, &Dir{FD: -1, Rel: rel, Sub: below, matches: m, Wanted: wanted}, nil
}

// Enter opens a directory that lies in another, which is open.
func (f *Files) Enter(parent, d *Dir) (err error) {
	d.FD, err = f.openDir(parent.FD, path.Base(d.Rel), d.Rel)
	if err == nil {
		err = unix.Fstat(d.FD, &d.Stat)
	}
	return err
}

// openDir opens the directory name in dir; rel is where it lies.
func (f *Files) openDir(dir int, name, rel string) (int, error) {
	flags := uint64(0)
	if f.careful() {
		flags = unix.RESOLVE_NO_XDEV
	}
	if f.care.Deepest > 0 && strings.Count(rel, "/") >= f.care.Deepest {
		return -1, beneath.ErrDeep
	}
	return beneath.OpenDirAt(dir, name, flags)
}

func (f *Files) careful() bool { return f.care.Pay != nil }

// list lists an open directory; rel is its path.
func (f *Files) list(ctx context.Context, dir int, rel string) ([]beneath.Entry, error) {
	if !f.careful() {
		return beneath.ReadDir(dir, rel)
	}
	return beneath.List(dir, rel, func(name string) error { return f.care.Pay(ctx, f.cost+len(rel)+len(name)) })
}

// entryCost is about what is kept in memory for a file beside its path and what each
// pattern says of it, in bytes.
const entryCost = 400

// NotFound says that a source is not there.
func NotFound(name string) error {
	return fmt.Errorf("%q: %w", "/"+strings.TrimPrefix(name, "/"), ErrNotFound)
}

// ErrNotFound says that a copy names a source that is not there.
var ErrNotFound = errors.New("not found")
