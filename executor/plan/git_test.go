package plan

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestParseGit(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		src  string
		want *GitSource // nil: no repository
		err  string
	}{
		{src: "https://h/x.git", want: &GitSource{Repository: Repository{URL: "https://h/x.git"}}},
		{src: "HTTPS://h/x.git", want: &GitSource{Repository: Repository{URL: "https://h/x.git"}}},
		{src: "https://u:p@h:1/a/x.git#b/c:d//e/../f", want: &GitSource{Repository: Repository{URL: "https://u:p@h:1/a/x.git", Ref: "b/c", Subdir: "d/f"}}},
		{src: "http://h/x.git#:../../sub", want: &GitSource{Repository: Repository{URL: "http://h/x.git", Subdir: "sub"}}},
		{src: "git://h/x", want: &GitSource{Repository: Repository{URL: "git://h/x"}}},
		{src: "ssh://git@h:22/x#v1", want: &GitSource{Repository: Repository{URL: "ssh://git@h:22/x", Ref: "v1"}}},
		{src: "git@h:o/x", want: &GitSource{Repository: Repository{URL: "git@h:o/x"}}},
		{src: "git@h:o/x.git?branch=b#:s", want: &GitSource{Repository: Repository{URL: "git@h:o/x.git", Ref: "refs/heads/b", Subdir: "s"}}},
		{src: "https://h/x.git?ref=r&subdir=/s", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Ref: "r", Subdir: "/s"}}},
		{src: "https://h/x.git?ref=r#r", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Ref: "r"}}},
		{src: "https://h/x.git?tag=v1", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Ref: "refs/tags/v1"}}},
		{src: "https://h/x.git?tag=refs/tags/v1", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Ref: "refs/tags/v1"}}},
		{src: "https://h/x.git?checksum=abc", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Commit: "abc"}}},
		{src: "https://h/x.git?commit=abc&fetch-by-commit", want: &GitSource{Repository: Repository{URL: "https://h/x.git", Commit: "abc", FetchByCommit: true}}},
		{src: "https://h/x.git?submodules=0&mtime=commit", want: &GitSource{Repository: Repository{URL: "https://h/x.git", NoSubmodules: true, CommitTime: true}}},
		{src: "https://h/x.git?submodules&mtime=checkout", want: &GitSource{Repository: Repository{URL: "https://h/x.git"}}},
		{src: "https://h/x.git?keep-git-dir", want: &GitSource{Repository: Repository{URL: "https://h/x.git"}, KeepGitDir: &yes}},
		{src: "https://h/x.git?keep-git-dir=false", want: &GitSource{Repository: Repository{URL: "https://h/x.git"}, KeepGitDir: &no}},

		{src: "https://h/x.git?ref=a#b", err: `ref conflicts: "b" vs "a"`},
		{src: "https://h/x.git?ref=a&tag=b", err: `ref conflicts: "a" vs "refs/tags/b"`},
		{src: "https://h/x.git?tag=a&branch=b", err: "branch conflicts with tag"},
		{src: "https://h/x.git?subdir=a#:b", err: `subdir conflicts: "b" vs "a"`},
		{src: "https://h/x.git?commit=a&checksum=b", err: `checksum conflicts: "b" vs "a"`},
		{src: "https://h/x.git?ref=", err: `query "ref" has no value`},
		{src: "https://h/x.git?ref=a&ref=b", err: `query "ref" has multiple values`},
		{src: "https://h/x.git?depth=1", err: `unexpected query "depth"`},
		{src: "https://h/x.git?keep-git-dir=maybe", err: `invalid keep-git-dir value: "maybe"`},
		{src: "https://h/x.git?mtime=now", err: `invalid mtime value: "now" (must be "checkout" or "commit")`},
		{src: "git@h:x?%zz", err: "invalid query in scp-style url"},
		{src: "ssh://u:secret@h:port/x", err: "invalid URL of a git repository"},

		{src: "https://h/x"}, {src: "https://h/x.git/"}, {src: "https://h/x.git.zip"}, {src: "ftp://h/x.git"},
		{src: "x.git"}, {src: "./git@h:x"}, {src: "../x.git"}, {src: "h:x"}, {src: "a b@h:x"}, {src: "github.com/o/r"}, {src: ""},
	} {
		got, err := ParseGit(tc.src)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: error %v, want %q", tc.src, err, tc.err)
		}
		if err == nil && !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.src, got, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows a password: %v", tc.src, err)
		}
	}
	got, err := ParseGitContext("github.com/o/r#v1:d")
	want := &GitSource{Repository: Repository{URL: "https://github.com/o/r", Ref: "v1", Subdir: "d"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a context on GitHub: %+v, %v", got, err)
	}
}

func TestAddGit(t *testing.T) {
	keep := &Repository{URL: "https://h/x.git", Ref: "refs/heads/b", Subdir: "d", Commit: "abc", KeepGitDir: true}
	for _, tc := range []struct {
		text string
		want *Copy
	}{
		{"ADD --keep-git-dir --checksum=$S --chown=1:2 --chmod=7 --link --exclude=x https://h/x.git?branch=b#:d /d", &Copy{
			Add: true, Dest: "/d", Chown: "1:2", Chmod: "7", Link: true, Exclude: []string{"x"}, Remotes: []Remote{{Git: keep}}}},
		{"ADD --keep-git-dir=true https://h/x.git?commit=abc&keep-git-dir=1&branch=b#:d /d", &Copy{Add: true, Dest: "/d", Remotes: []Remote{{Git: keep}}}},
		{"ADD --unpack git@h:x a http://h/f b http://h/g /d/", &Copy{Add: true, Unpack: new(true), Dest: "/d/", Paths: []string{"a", "b"}, Remotes: []Remote{
			{Git: &Repository{URL: "git@h:x"}}, {URL: "http://h/f", Name: "f", After: 1}, {URL: "http://h/g", Name: "g", After: 2}}}},
	} {
		p := mustPlan(t, base+"ARG S=abc\n"+tc.text+"\n", Options{})
		steps := p.Stages[len(p.Stages)-1].Steps
		if got := steps[len(steps)-1].Op; !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.text, got, tc.want)
		}
	}
	for text, want := range map[string]string{
		"ADD --checksum=a https://h/x.git?checksum=b /x":                    `checksum mismatch "a" != "b"`,
		"ADD --keep-git-dir=false https://h/x.git?keep-git-dir /x":          "inconsistent keep-git-dir configuration",
		"ADD --checksum=a https://h/x.git https://h/y.git /x":               "checksum can't be specified for multiple sources",
		"ADD --checksum=a y /x":                                             "checksum requires HTTP(S) or Git sources",
		"ADD https://h/x.git?depth=1 /x":                                    `unexpected query "depth"`,
		"ADD --checksum=md5:d41d8cd98f00b204e9800998ecf8427e http://h/f /x": "unsupported digest algorithm",
	} {
		_, err := makePlan(base+text+"\n", Options{}, testImages())
		var e *dockerfile.Error
		if !errors.As(err, &e) || e.Class != request.ClassParse || e.Line != 2 || !strings.Contains(e.Msg, want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, sum := range []string{"sha256:" + strings.Repeat("0", 64), "sha384:" + strings.Repeat("0", 96), "sha512:" + strings.Repeat("0", 128)} {
		mustPlan(t, base+"ADD --checksum="+sum+" http://h/f /x\n", Options{})
	}
}

// FuzzParseGit: never a panic, nothing in an address that only BuildKit knows,
// and no password in an error.
func FuzzParseGit(f *testing.F) {
	for _, s := range []string{"https://h/x.git#a:b", "git@h:x?ref=a#b", "git://h/x?tag=a&branch=b", "github.com/a/b#c",
		"ssh://u@h:1/x?submodules&keep-git-dir=false", "https://u:pa55word@h/a.git?commit=ab&mtime=commit", "http://h/%zz.git"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGitContext(s)
		if err != nil && strings.Contains(err.Error(), "pa55word") && !strings.Contains(s, "?") && !strings.Contains(s, "#") {
			t.Errorf("%q: %v", s, err)
		}
		if err != nil || g == nil {
			return
		}
		if strings.Contains(g.Repository.URL, "#") || g.Repository.URL == "" {
			t.Errorf("%q: address %q", s, g.Repository.URL)
		}
	})
}
