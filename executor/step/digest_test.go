package step

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
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
		{"the owner in a context", false, "", all, func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, true},
		{"the owner in a stage", true, "", all, func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, false},
		{"an owner that --chown sets", true, "", with(all, func(c *plan.Copy) { c.Chown = "1" }), func(d string) error { return os.Chown(filepath.Join(d, "a/x"), 7, 7) }, true},
		{"an attribute in a stage", true, "", all, func(d string) error { return unix.Setxattr(filepath.Join(d, "a/x"), "user.a", []byte("v"), 0) }, false},
		{"an attribute in a context", false, "", all, func(d string) error { return unix.Setxattr(filepath.Join(d, "a/x"), "user.a", []byte("v"), 0) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("needs root to give files away")
			}
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "a/d"), 0o755))
			for name, content := range map[string]string{"a/x": "1", "a/d/y": "y", "a/d/same": "1", "b": "1"} {
				must(t, write(name, content)(dir))
			}
			must(t, os.Symlink("../b", filepath.Join(dir, "a/link")))
			digestOf := func() [32]byte {
				src := Source{Root: dir, stage: tt.stage}
				if tt.ignore != "" {
					file := filepath.Join(t.TempDir(), "ignore")
					must(t, os.WriteFile(file, []byte(tt.ignore), 0o644))
					c, err := buildcontext.Open(dir, file)
					must(t, err)
					src.Excluded = c.Excluded
				}
				sum, err := digest(t.Context(), &tt.op, src)
				must(t, err)
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
