package buildcontext

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
)

// list walks a context as a copy does: a hidden directory is entered if
// something in it may come back, and listed if something did.
func list(t *testing.T, c *Context, rel string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.Root, rel))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		p := path.Join(rel, e.Name())
		hidden := excluded(t, c, p, false)
		if !e.IsDir() {
			if !hidden {
				out = append(out, p)
			}
			continue
		}
		if excluded(t, c, p, true) {
			continue
		}
		below := list(t, c, p)
		if !hidden || len(below) > 0 {
			out = append(out, p+"/")
		}
		out = append(out, below...)
	}
	return out
}

func excluded(t *testing.T, c *Context, rel string, dir bool) bool {
	t.Helper()
	hidden, err := c.Excluded(rel, dir)
	if err != nil {
		t.Fatal(err)
	}
	return hidden
}

// fill makes files; a name with a slash at the end is a directory.
func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(n, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExcluded(t *testing.T) {
	tests := []struct {
		name, patterns string
		files, want    string
	}{
		{"comments, rooted and bare names", "# comment\n*.log\ntmp\nnode_modules/\n/rooted.txt\n",
			"a.txt x.log sub/y.log tmp/z sub/tmp/z node_modules/m/i.js rooted.txt sub/rooted.txt",
			"a.txt sub/ sub/rooted.txt sub/tmp/ sub/tmp/z sub/y.log"},
		{"case counts", "readme.md", "README.md readme.md", "README.md"},
		{"carriage returns and a byte order mark", "\ufeffa.txt\r\nb.txt\r\n", "a.txt b.txt c.txt", "c.txt"},
		{"what is in a directory, not the directory", "d/*", "d/a e", "d/ e"},
		{"any depth", "**/*.log\n**/cache\ndocs/**", "x.log s/t/y.log s/cache/z docs/a s/keep", "docs/ s/ s/keep s/t/"},
		{"all but some", "**\n!go.mod\n!cmd/*/main.go", "go.mod go.sum cmd/a/main.go cmd/a/other.go cmd/b/x docs/",
			"cmd/ cmd/a/ cmd/a/main.go go.mod"},
		{"back from a hidden directory", "vendor\n!vendor/keep/**", "vendor/a vendor/keep/b vendor/keep/d/c",
			"vendor/ vendor/keep/ vendor/keep/b vendor/keep/d/ vendor/keep/d/c"},
		{"the last line decides", "*\n!keep.txt\n!src\nsrc/*.tmp\n!src/important.tmp",
			"keep.txt drop.txt src/a.c src/b.tmp src/important.tmp", "keep.txt src/ src/a.c src/important.tmp"},
		{"blanks, ./ and //", "  a.txt  \n./b.txt\nd//e.txt", "a.txt b.txt c.txt d/e.txt", "c.txt d/"},
		{"marks, classes and escapes", "file?.txt\n[xy].md\na*/b*\n\\#lit",
			"file1.txt file10.txt x.md z.md abc/bcd abc/cde #lit", "abc/ abc/cde file10.txt z.md"},
		{"an exception with a mark", "subdir\n!*/sub1*", "subdir/sub1.txt subdir/other subdir/deep/x",
			"subdir/ subdir/sub1.txt"},
		{"hidden again below an exception", "*\n!a\na/b\n!a/b/c", "a/x a/b/y a/b/c/z q", "a/ a/b/ a/b/c/ a/b/c/z a/x"},
		{"no patterns", "\n# nothing\n", "a b/c", "a b/ b/c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, strings.Fields(tt.files)...)
			file := filepath.Join(t.TempDir(), "dockerignore")
			if err := os.WriteFile(file, []byte(tt.patterns), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := Open(dir, file)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(list(t, c, ""), " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestExcludedNeedsNoOrder asks for paths in an odd order: the answers may not
// depend on what was asked before.
func TestExcludedNeedsNoOrder(t *testing.T) {
	patterns := []string{"a", "!a/b", "a/b/*.o", "**/x*", "!**/xkeep", "c/**/d"}
	ig, err := take.NewIgnore(patterns)
	if err != nil {
		t.Fatal(err)
	}
	c := &Context{ignore: ig}
	paths := []string{"a/b/c/d", "a/b/m.o", "a/b", "a", "c/p/q/d/e", "c", "q/x1/xkeep", "q/x1", "xkeep", "a/b/x/xkeep/y"}
	first := map[string]bool{}
	for _, p := range paths {
		first[p] = excluded(t, c, p, false)
	}
	slices.Reverse(paths)
	for _, p := range paths {
		if got := excluded(t, c, p, false); got != first[p] {
			t.Errorf("%s: %v, then %v", p, first[p], got)
		}
		want, err := patternmatcher.MatchesOrParentMatches(p, patterns)
		if err != nil {
			t.Fatal(err)
		}
		if first[p] != want {
			t.Errorf("%s: hidden %v, want %v", p, first[p], want)
		}
	}
}

func TestPrunes(t *testing.T) {
	tests := []struct {
		patterns, dir string
		want          bool
	}{
		{"node_modules", "node_modules", true},
		{"node_modules", "node_modules/a/b", true},
		{"node_modules\n!keep.txt", "node_modules", true},
		{"node_modules\n!node_modules/a/b", "node_modules", false},
		{"node_modules\n!node_modules/a/b", "node_modules/a", false},
		{"node_modules\n!node_modules/a/b", "node_modules/c", true},
		{"node_modules\n!**/b", "node_modules/c", false},
		{"*\n!cmd/*/main.go", "vendor", true},
		{"*\n!cmd/*/main.go", "cmd/x", false},
		{"*\n![c]md/*/main.go", "vendor", false}, // not sure: yes
		{"*.o", "src", false},
	}
	for _, tt := range tests {
		ig, err := take.NewIgnore(strings.Split(tt.patterns, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := excluded(t, &Context{ignore: ig}, tt.dir, true); got != tt.want {
			t.Errorf("%q hides all of %s: %v, want %v", tt.patterns, tt.dir, got, tt.want)
		}
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "bad", "sub/")
	if err := os.WriteFile(filepath.Join(dir, "bad"), []byte("[a"), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("[secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, "huge")
	if err := os.Truncate(filepath.Join(dir, "huge"), maxIgnoreFile+1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"bad": "syntax error in pattern", "sub": "not a regular file", "link": "leads out of the context",
		"linked/secret": "leads out of the context", "huge": "exceeds 8388608 bytes", "none": "no such file",
	} {
		_, err := Open(dir, filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "[secret") {
			t.Errorf("%s: the error shows what is outside: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing context: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "bad"), ""); err == nil {
		t.Error("a file was taken as context")
	}
}

// FuzzExcluded holds the remembered, pruning matcher against the plain one.
func FuzzExcluded(f *testing.F) {
	f.Add("a\n!a/b\n**/c", "a/b/c")
	f.Add("*\n!cmd/*/main.go", "cmd/x/main.go")
	f.Add("**\n!x?\n[ab]", "xy/b")
	f.Fuzz(func(t *testing.T, patterns, rel string) {
		if rel != path.Clean(rel) || strings.HasPrefix(rel, "/") || strings.HasPrefix(rel, "..") || rel == "." || len(rel) > 64 || len(patterns) > 64 {
			t.Skip()
		}
		lines := strings.Split(patterns, "\n")
		ig, err := take.NewIgnore(lines)
		if err != nil || ig == nil {
			t.Skip()
		}
		c := &Context{ignore: ig}
		got, err := c.Excluded(rel, false)
		if err != nil {
			t.Skip()
		}
		for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
			all, err := c.Excluded(dir, true)
			if err != nil {
				t.Skip()
			}
			if all && !got {
				t.Errorf("%q: %s hides all, but not %s", patterns, dir, rel)
			}
		}
	})
}
