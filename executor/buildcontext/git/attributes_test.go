package git

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// TestLineEndings compares with git's own checkout of a repository in which
// every kind of file meets every kind of rule.
func TestLineEndings(t *testing.T) {
	root := t.TempDir()
	r := newRepo(t, root, "r.git")
	kinds := map[string]string{
		"lf": "a\nb\n", "crlf": "a\r\nb\r\n", "mixed": "a\r\nb\n", "cr": "a\rb\n", "none": "abc", "empty": "",
		"nul": "a\x00\nb\n", "odd": "\x01\x02\x03\n\x04", "eof": "a\n\x1a", "lead": "\n\n\r\n",
	}
	for _, ext := range []string{"bat", "auto", "input", "bin", "old", "no", "legacy", "macro", "lfs", "weird [x]", "UP"} {
		for kind, data := range kinds {
			for _, dir := range []string{"", "sub/", "sub/deep/"} {
				r.write(dir+kind+"."+ext, data)
			}
		}
	}
	r.write(".gitattributes", `# rules
*.bat text eol=crlf
*.auto text=auto eol=crlf
*.input eol=lf
*.bin eol=crlf
*.bin binary
*.old crlf eol=crlf
*.no -text eol=crlf
*.legacy crlf=input eol=crlf
[attr]dos text eol=crlf
*.macro dos
"*.weird [[]x]" eol=crlf
sub/deep/*.UP eol=crlf
/[k-m]?.UP eol=crlf
**/[!a-z]*.bat !eol
!x text
`)
	r.write("sub/.gitattributes", "*.bat eol=lf\nlf.input eol=crlf\n/deep/** -text\n[attr]dos -text\n")
	r.write("sub/deep/.gitattributes", "cr.bat !eol !text\nlf.bat text eol=crlf\n")
	r.git("-c", "core.safecrlf=false", "add", "-A", "-f")
	r.git("-c", "core.safecrlf=false", "commit", "-q", "-m", "x")
	s := serve(t, root)
	want := filepath.Join(t.TempDir(), "w")
	git(t, "/", "clone", "-q", r.dir, want)
	if err := os.RemoveAll(filepath.Join(want, ".git")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"", "sub", "sub/deep"} {
		got, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", Subdir: sub})
		if diff := cmp.Diff(tree(t, filepath.Join(want, sub)), tree(t, got)); diff != "" {
			t.Errorf("in %q: %s", sub, diff)
		}
	}
	kept, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", KeepGitDir: true})
	if status := git(t, kept, "status", "--porcelain"); status != git(t, r.dir, "status", "--porcelain") {
		t.Errorf("status %s", status)
	}
}

// TestMacrosOfMacros: a macro that has many macros, itself among them, ends.
func TestMacrosOfMacros(t *testing.T) {
	a := parseAttributes(nil, "", "[attr]a"+strings.Repeat(" a", 1000)+"\n* a\n*.b text eol=crlf\n")
	if got := a.endings("f.b"); got != crlf {
		t.Error(got)
	}
}
