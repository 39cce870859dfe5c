package take

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// content collects what a copy takes, in any order, for its digest; see Digest. A nil
// one collects nothing.
type content struct {
	names int
	of    string // what list is below: the number of a name, and the name

	mu   sync.Mutex
	list []taken
}

// taken is one file that is copied.
type taken struct {
	path  string
	about string // type, mode, owner, attributes
	data  string // of a regular file the hash of its contents, of a link its target
	id    Inode  // of a regular file that has several names
}

// begin is about what follows: the files of one name.
func (c *content) begin(name string) {
	if c != nil {
		c.names++
		c.of = fmt.Sprintf("%09d\x00%s\x00", c.names, name)
	}
}

func (c *content) add(t taken) {
	if c == nil {
		return
	}
	t.path = c.of + t.path
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, t)
}

// sum is the digest of all. Which files are one counts, and which of their names was
// met first does not.
func (c *content) sum() [sha256.Size]byte {
	slices.SortFunc(c.list, func(a, b taken) int { return strings.Compare(a.path, b.path) })
	type group struct {
		first, data string
		n           int
	}
	groups := map[Inode]group{}
	for _, t := range c.list {
		if t.id == (Inode{}) {
			continue
		}
		g := groups[t.id]
		groups[t.id] = group{cmp.Or(g.first, t.path), cmp.Or(g.data, t.data), g.n + 1}
	}
	sum := sha256.New()
	var buf []byte
	for _, t := range c.list {
		g, b := groups[t.id], buf[:0]
		if g.n < 2 {
			g.first = ""
		}
		for _, text := range []string{t.path, t.about, cmp.Or(g.data, t.data), g.first} {
			b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
		}
		sum.Write(b)
		buf = b
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// Collects says that somebody wants Sum.
func (f *Files) Collects() bool { return f.content != nil }

// Sum is the digest of all that was taken.
func (f *Files) Sum() [sha256.Size]byte { return f.content.sum() }

// Took notes that a file of d was taken, which is no directory; data is the hash of
// its contents, of a link its target. It is empty for a further name of one file.
func (f *Files) Took(d *Dir, e beneath.Entry, st *unix.Stat_t, data string) {
	if f.content != nil {
		f.content.add(f.file(d, e, st, data))
	}
}

// TookDir notes that a directory was entered.
func (f *Files) TookDir(d *Dir) {
	if f.content != nil {
		f.content.add(f.dir(d))
	}
}

func (f *Files) file(d *Dir, e beneath.Entry, st *unix.Stat_t, data string) taken {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		data = fmt.Sprint(st.Rdev)
	}
	t := taken{path: d.below(e), about: "f" + f.attributes(st), data: data}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
		t.id = Inode{uint64(st.Dev), st.Ino}
	}
	return t
}

// dir is what is collected of a directory; one that is made only for what it holds is
// another.
func (f *Files) dir(d *Dir) taken {
	kind := "d"
	if d.Lazy {
		kind = "l"
	}
	return taken{path: d.Sub, about: kind + f.attributes(&d.Stat)}
}

// attributes are those that a copy gets whoever makes it.
func (f *Files) attributes(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return "link"
	}
	return strconv.FormatUint(uint64(f.ModeOf(st)|st.Mode&unix.S_IFMT), 8)
}

// Inode tells files apart, whatever they are called.
type Inode struct{ Dev, Ino uint64 }
