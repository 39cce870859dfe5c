package step

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// TestDigest changes one thing at a time: the digest has to follow what the copy
// would make, and nothing else.
func TestDigest(t *testing.T) {
	write := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) }
	}
	all := cp("/to/", "a")
	for _, tt := range []struct {
		name   string
		stage  bool
		ignore string
		op     plan.Copy
		change func(dir string) error
		same   bool
	}{
		{"nothing", false, "", all, func(string) error { return nil }, true},
		{"contents", false, "", all, write("a/x", "2"), false},
		{"contents of the same size, below", false, "", all, write("a/d/y", "z"), false},
		{"a new file", false, "", all, write("a/new", ""), false},
		{"a new directory", false, "", all, func(d string) error { return os.Mkdir(filepath.Join(d, "a/e"), 0o755) }, false},
		{"a name", false, "", all, func(d string) error { return os.Rename(filepath.Join(d, "a/x"), filepath.Join(d, "a/w")) }, false},
		{"a file that is gone", false, "", all, func(d string) error { return os.Remove(filepath.Join(d, "a/x")) }, false},
		{"a mode", false, "", all, func(d string) error { return os.Chmod(filepath.Join(d, "a/x"), 0o755) }, false},
		{"the mode of a directory", false, "", all, func(d string) error { return os.Chmod(filepath.Join(d, "a/d"), 0o700) }, false},
		{"a mode that --chmod sets", false, "", with(all, func(c *plan.Copy) { c.Chmod = "600" }), func(d string) error { return os.Chmod(filepath.Join(d, "a/x"), 0o755) }, true},
		{"the target of a link", false, "", all, func(d string) error { return relink(d, "a/link", "x") }, false},
		{"a hard link", false, "", all, func(d string) error {
			return firstOf(os.Remove(filepath.Join(d, "a/d/same")), os.Link(filepath.Join(d, "a/x"), filepath.Join(d, "a/d/same")))
		}, false},
		{"times", false, "", all, func(d string) error {
			return firstOf(os.Chtimes(filepath.Join(d, "a/x"), time.Time{}, time.Unix(1, 0)), os.Chtimes(filepath.Join(d, "a/d"), time.Time{}, time.Unix(1, 0)))
		}, true},
		{"what is not named", false, "", all, write("b", "2"), true},
		{"what the ignore file hides", false, "a/d\n", all, write("a/d/y", "z"), true},
		{"what it lets be seen again", false, "a/d\n!a/d/y\n", all, write("a/d/y", "z"), false},
		{"what --exclude leaves out", false, "", with(all, func(c *plan.Copy) { c.Exclude = []string{"d"} }), write("a/d/y", "z"), true},
		{"what --parents does not ask for", false, "", with(cp("/to/", "a/d"), func(c *plan.Copy) { c.Parents = true }), write("a/x", "2"), true},
		{"what --parents asks for", false, "", with(cp("/to/", "a/d"), func(c *plan.Copy) { c.Parents = true }), write("a/d/y", "z"), false},
		{"a match of a wildcard", false, "", cp("/to/", "*"), write("b", "2"), false},
		{"one more of them", false, "", cp("/to/", "*"), write("c", ""), false},
		{"a single file", false, "", cp("/to", "b"), write("b", "2"), false},
		{"the file that a link names", false, "", cp("/to", "a/link"), write("b", "2"), false},
		{"an archive", false, "", with(cp("/to/", "b", "x.tar"), func(c *plan.Copy) { c.Add = true }), write("x.tar", string(make([]byte, 1024))), false},
		{"a hard link to what is not copied", false, "", all, func(d string) error { return os.Link(filepath.Join(d, "a/x"), filepath.Join(d, "c")) }, true},
		{"the owner in a context", false, "", all, func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, true},
		{"the owner in a stage", true, "", all, func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, false},
		{"an owner that --chown sets", true, "", with(all, func(c *plan.Copy) { c.Chown = "1" }), func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, true},
		{"an attribute in a stage", true, "", all, func(d string) error { return unix.Setxattr(filepath.Join(d, "a/x"), "user.a", []byte("v"), 0) }, false},
		{"a FIFO", false, "", all, func(d string) error { return unix.Mkfifo(filepath.Join(d, "a/pipe2"), 0o600) }, false},
		{"the mode of a FIFO", false, "", all, func(d string) error { return os.Chmod(filepath.Join(d, "a/pipe"), 0o644) }, false},
		{"a FIFO in place of a file", false, "", all, func(d string) error {
			return firstOf(os.Remove(filepath.Join(d, "a/x")), unix.Mkfifo(filepath.Join(d, "a/x"), 0o644))
		}, false},
		{"a socket", false, "", all, func(d string) error { return unix.Mknod(filepath.Join(d, "a/sock"), unix.S_IFSOCK|0o600, 0) }, true},
		{"a directory that is there for what it holds", false, "a/d\n!a/d/y\n", all, func(d string) error { return os.Chmod(filepath.Join(d, "a/d"), 0o700) }, false},
		{"what was hidden in it", false, "a/d\n!a/d/y\n", all, write("a/d/same", "2"), true},
		{"a parent of --parents", false, "", with(cp("/to/", "a/d/y"), func(c *plan.Copy) { c.Parents = true }), func(d string) error { return os.Chmod(filepath.Join(d, "a"), 0o700) }, false},
		{"what is beside a pivot", false, "", with(cp("/to/", "a/./d/*"), func(c *plan.Copy) { c.Parents = true }), write("a/x", "2"), true},
		{"what is behind one", false, "", with(cp("/to/", "a/./d/*"), func(c *plan.Copy) { c.Parents = true }), write("a/d/y", "2"), false},
		{"a wildcard in the middle", false, "", cp("/to/", "?/d"), write("a/d/y", "2"), false},
		{"a bit that --chmod adds", false, "", with(all, func(c *plan.Copy) { c.Chmod = "u+x" }), func(d string) error { return os.Chmod(filepath.Join(d, "a/x"), 0o744) }, true},
		{"one that it leaves", false, "", with(all, func(c *plan.Copy) { c.Chmod = "u+x" }), func(d string) error { return os.Chmod(filepath.Join(d, "a/x"), 0o664) }, false},
		{"the directory that a link names", false, "", cp("/to/", "dir"), write("a/d/y", "2"), false},
		{"an attribute in a context", false, "", all, func(d string) error { return unix.Setxattr(filepath.Join(d, "a/x"), "user.a", []byte("v"), 0) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("needs root to give files away")
			}
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "a/d"), 0o755))
			for name, content := range map[string]string{"a/x": "1", "a/d/y": "y", "a/d/same": "1", "a/one": "1", "b": "1", "x.tar": "x"} {
				must(t, write(name, content)(dir))
			}
			must(t, os.Symlink("../b", filepath.Join(dir, "a/link")))
			must(t, os.Symlink("/a/d", filepath.Join(dir, "dir")))
			must(t, os.Link(filepath.Join(dir, "a/one"), filepath.Join(dir, "a/d/twin")))
			must(t, unix.Mkfifo(filepath.Join(dir, "a/pipe"), 0o600))
			digestOf := func() [32]byte {
				src := Source{Root: dir, Stage: tt.stage, Owners: tt.stage && tt.op.Chown == ""}
				if tt.ignore != "" {
					file := filepath.Join(t.TempDir(), "ignore")
					must(t, os.WriteFile(file, []byte(tt.ignore), 0o644))
					c, err := buildcontext.Open(dir, file)
					must(t, err)
					src.Excluded, src.Patterns = c.Excluded, c.Patterns
				}
				sum, err := take.Digest(t.Context(), src, selection(&tt.op), take.Care{})
				must(t, err)
				if took := tookBy(t, src, tt.op); !tt.stage && took != sum {
					t.Errorf("the copy itself took %x, not %x", took, sum)
				}
				known := remembered{}
				for range 2 { // the second time from what is remembered
					if launcher := asLauncher(t, src, &tt.op, known); !tt.stage && launcher != sum {
						t.Errorf("the launcher says %x, not %x", launcher, sum)
					}
				}
				return sum
			}
			before := digestOf()
			must(t, tt.change(dir))
			if after := digestOf(); (before == after) != tt.same {
				t.Errorf("the same digest: %v, want %v", before == after, tt.same)
			}
		})
	}
}

// asLauncher is the digest as the launcher makes it, of what it is told.
func asLauncher(t *testing.T, src Source, op *plan.Copy, known remembered) [32]byte {
	t.Helper()
	b, err := json.Marshal(Contents(op, src))
	must(t, err)
	var of request.Contents
	must(t, json.Unmarshal(b, &of))
	ignore, err := take.NewIgnore(of.Ignore)
	must(t, err)
	there := take.Source{Root: src.Root, Patterns: of.Ignore, Excluded: ignore.Excluded}
	pay := func(ctx context.Context, _ int) error { return ctx.Err() }
	sum, err := take.Digest(t.Context(), there, of.Selection, take.Care{Deepest: 20, Pay: pay, Hashes: known})
	must(t, err)
	return sum
}

// remembered are the hashes of files that nobody changes meanwhile.
type remembered map[take.Inode][32]byte

func (r remembered) Known(st *unix.Stat_t) ([32]byte, bool) {
	sum, ok := r[take.Inode{Dev: uint64(st.Dev), Ino: st.Ino}]
	return sum, ok
}

func (r remembered) Learn(st *unix.Stat_t, _ time.Time, sum [32]byte) {
	r[take.Inode{Dev: uint64(st.Dev), Ino: st.Ino}] = sum
}

// tookBy copies, and returns the digest of what the copy says it took.
func tookBy(t *testing.T, src Source, op plan.Copy) [32]byte {
	t.Helper()
	root := t.TempDir()
	c, err := newCopier(root, root, src, &op, true)
	must(t, err)
	must(t, c.all(t.Context(), &op, Env{}))
	sum := c.from.Sum()
	must(t, c.close())
	return sum
}

func relink(dir, name, to string) error {
	return firstOf(os.Remove(filepath.Join(dir, name)), os.Symlink(to, filepath.Join(dir, name)))
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
