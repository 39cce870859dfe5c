package hashes

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/whole"
)

const (
	// form begins every file; it changes with what is in one.
	form = "kbuild-sandbox hashes 1\n"
	// most is how many files are remembered of one context.
	most = 500_000
	// mostContexts is how many contexts are remembered, those used last.
	mostContexts = 64
	// racy is for how long after a change another may look the same.
	racy = 2 * time.Second

	forgetAfter = 30 * 24 * time.Hour
)

// nameForm is that of the files; what is called otherwise is somebody else's.
var nameForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// file tells files apart.
type file struct{ Dev, Ino uint64 }

// state is a file's when it was read.
type state struct {
	Size, Mtime, Ctime int64
	Sum                [sha256.Size]byte
}

// recordSize is what is written of a file, in bytes: five numbers and the hash.
const recordSize = 5*8 + sha256.Size

// appendRecord writes down a file.
func appendRecord(b []byte, name file, is state) []byte {
	for _, n := range []uint64{name.Dev, name.Ino, uint64(is.Size), uint64(is.Mtime), uint64(is.Ctime)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return append(b, is.Sum[:]...)
}

// parseRecord is appendRecord undone.
func parseRecord(b []byte) (name file, is state) {
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return file{n(0), n(1)}, state{int64(n(2)), int64(n(3)), int64(n(4)), [sha256.Size]byte(b[5*8 : recordSize])}
}

// Context is what is remembered of one context. It is safe for concurrent use.
type Context struct {
	path string

	mu    sync.Mutex
	files map[file]state
	used  map[file]bool
	fresh bool // there is something that is not written
}

// Open reads what dir, which is there, remembers of the context at path.
func Open(dir, path string) *Context {
	sum := sha256.Sum256([]byte(path))
	c := &Context{path: filepath.Join(dir, hex.EncodeToString(sum[:])), used: map[file]bool{}}
	c.files = read(c.path)
	return c
}

// read reads a file; one that is not there, or not as it was written, is empty.
func read(path string) map[file]state {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return map[file]state{}
	}
	defer f.Close()
	limit := int64(len(form) + most*recordSize + sha256.Size)
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	end := len(b) - sha256.Size
	if err != nil || int64(len(b)) > limit || end < len(form) || !bytes.HasPrefix(b, []byte(form)) || sha256.Sum256(b[:end]) != [sha256.Size]byte(b[end:]) {
		return map[file]state{}
	}
	b = b[len(form):end]
	files := make(map[file]state, len(b)/recordSize)
	for ; len(b) >= recordSize; b = b[recordSize:] {
		name, is := parseRecord(b)
		files[name] = is
	}
	return files
}

func stateOf(st *unix.Stat_t) (file, state) {
	return file{uint64(st.Dev), st.Ino}, state{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// Known returns the hash of a file that is as it was.
func (c *Context) Known(st *unix.Stat_t) (sum [sha256.Size]byte, ok bool) {
	name, now := stateOf(st)
	c.mu.Lock()
	defer c.mu.Unlock()
	was, ok := c.files[name]
	if now.Sum = was.Sum; !ok || was != now {
		return [sha256.Size]byte{}, false
	}
	c.used[name] = true
	return was.Sum, true
}

// Learn takes the hash of a file that was read from a time on and is still as it was
// then.
func (c *Context) Learn(st *unix.Stat_t, from time.Time, sum [sha256.Size]byte) {
	name, is := stateOf(st)
	if is.Sum = sum; max(is.Mtime, is.Ctime) > from.Add(-racy).UnixNano() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name], c.used[name], c.fresh = is, true, true
}

// Save writes what is remembered, and forgets contexts that nobody builds any more.
func (c *Context) Save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fresh {
		now := time.Now()
		if err := os.Chtimes(c.path, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hashes of a context: %w", err)
		}
		return nil
	}
	b := append(make([]byte, 0, len(form)+min(len(c.files), most)*recordSize+sha256.Size), form...)
	left := most
	for name, is := range c.files {
		if len(c.files) > most && !c.used[name] || left == 0 {
			continue
		}
		left--
		b = appendRecord(b, name, is)
	}
	sum := sha256.Sum256(b)
	dir := filepath.Dir(c.path)
	if err := whole.Write(dir, c.path, append(b, sum[:]...)); err != nil {
		return fmt.Errorf("hashes of a context: %w", err)
	}
	c.fresh = false
	return sweep(dir)
}

// Item is what is kept of one context.
type Item struct {
	Key  string
	Size int64 // bytes
	Used time.Time
}

// List lists what is kept, the most recently used first.
func List(dir string) (items []Item, err error) {
	list, err := contexts(dir)
	for _, i := range list {
		items = append(items, Item{i.Name(), i.Size(), i.ModTime()})
	}
	return items, err
}

// Prune removes contexts that were last built before a time; zero: all. It returns
// how many bytes they were.
func Prune(dir string, before time.Time) (bytes int64, err error) {
	list, err := contexts(dir)
	if err != nil {
		return 0, err
	}
	for _, i := range list {
		if before.IsZero() || i.ModTime().Before(before) {
			if err := remove(dir, i); err != nil {
				return bytes, err
			}
			bytes += i.Size()
		}
	}
	return bytes, nil
}

func sweep(dir string) error {
	list, err := contexts(dir)
	if err != nil {
		return err
	}
	for n, i := range list {
		if n >= mostContexts || time.Since(i.ModTime()) > forgetAfter {
			err = errors.Join(err, remove(dir, i))
		}
	}
	return err
}

// contexts are the files of the directory, the most recently used first; those of a
// writer that died are removed.
func contexts(dir string) ([]fs.FileInfo, error) {
	err := whole.Sweep(dir, 0)
	entries, e := os.ReadDir(dir)
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("hashes of contexts: %w", err)
	}
	var list []fs.FileInfo
	for _, e := range entries {
		// Without an error, nobody has just removed it.
		if info, err := e.Info(); err == nil && nameForm.MatchString(e.Name()) {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	return list, nil
}

func remove(dir string, i fs.FileInfo) error {
	if err := os.Remove(filepath.Join(dir, i.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hashes of contexts: %w", err)
	}
	return nil
}

// Trusted says whether the ctime of files below a directory tells that they changed:
// it does on the usual file systems of a machine's own disks. A server or a program may
// say anything. In memory (tmpfs) a file that is mapped can change without it.
func Trusted(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, zfsMagic:
		return true
	}
	return false
}

const zfsMagic = 0x2fc12fc1
