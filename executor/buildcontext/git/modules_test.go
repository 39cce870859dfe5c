package git

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// nested makes top.git with the submodule mid at mods/mid, which has leaf at
// leaf, each by a relative URL.
func nested(t *testing.T, root string) (top *repo) {
	leaf := newRepo(t, root, "leaf.git")
	leaf.write("leaf.txt", "leaf\n")
	leaf.commit("leaf")
	mid := newRepo(t, root, "mid.git")
	mid.write("mid.txt", "mid\n")
	mid.git("submodule", "add", "-q", "--name", "the leaf", leaf.dir, "leaf")
	mid.git("config", "-f", ".gitmodules", "submodule.the leaf.url", "../leaf.git")
	pinned := mid.commit("mid")
	mid.write("mid.txt", "later\n") // not what top asks for
	mid.commit("later")
	top = newRepo(t, root, "top.git")
	top.write("top.txt", "top\n")
	top.git("submodule", "add", "-q", mid.dir, "mods/mid")
	git(t, filepath.Join(top.dir, "mods/mid"), "checkout", "-q", pinned)
	top.git("config", "-f", ".gitmodules", "submodule.mods/mid.url", "../mid.git")
	top.commit("top")
	return top
}

func TestSubmodules(t *testing.T) {
	root := t.TempDir()
	nested(t, root)
	s := serve(t, root)
	for _, tc := range []struct {
		name string
		repo buildcontext.Repository
		want []string
	}{
		{"all", buildcontext.Repository{}, []string{".gitmodules", "mods/mid/.gitmodules", "mods/mid/leaf/leaf.txt", "mods/mid/mid.txt", "top.txt"}},
		{"none", buildcontext.Repository{NoSubmodules: true}, []string{".gitmodules", "top.txt"}},
		{"above", buildcontext.Repository{Subdir: "mods"}, []string{"mid/.gitmodules", "mid/leaf/leaf.txt", "mid/mid.txt"}},
		{"one", buildcontext.Repository{Subdir: "mods/mid"}, []string{".gitmodules", "leaf/leaf.txt", "mid.txt"}},
		{"inner", buildcontext.Repository{Subdir: "mods/mid/leaf"}, []string{"leaf.txt"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.repo.URL = s.URL + "/top.git"
			dir, _ := checkout(t, newClient(t, Config{}), tc.repo)
			if diff := cmp.Diff(tc.want, files(t, dir)); diff != "" {
				t.Error(diff)
			}
			if all := tree(t, dir); tc.name == "none" && all["mods/mid"] != "drwxr-xr-x" {
				t.Errorf("the submodule's directory: %q", all["mods/mid"])
			}
			if b, err := os.ReadFile(filepath.Join(dir, "mods/mid/mid.txt")); tc.name == "all" && string(b) != "mid\n" {
				t.Errorf("not the pinned commit: %q, %v", b, err)
			}
		})
	}
}

// TestSubmodulesKept compares with a clone by git itself.
func TestSubmodulesKept(t *testing.T) {
	root := t.TempDir()
	nested(t, root)
	s := serve(t, root)
	want := t.TempDir()
	git(t, "/", "clone", "-q", "--recurse-submodules", s.URL+"/top.git", want)
	got, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/top.git", KeepGitDir: true})
	for _, at := range []string{"", "mods/mid", "mods/mid/leaf"} {
		for _, ask := range [][]string{
			{"status", "--porcelain"}, {"rev-parse", "HEAD"}, {"rev-parse", "--show-prefix"}, {"submodule", "status"},
			{"fsck", "--full", "--strict"}, {"remote", "-v"}, {"ls-files", "--stage"},
		} {
			a, b := git(t, filepath.Join(want, at), ask...), git(t, filepath.Join(got, at), ask...)
			if ask[0] == "submodule" { // what git describe says of a full history differs
				a, _, _ = strings.Cut(a, " (")
				b, _, _ = strings.Cut(b, " (")
			}
			if diff := cmp.Diff(a, b); diff != "" {
				t.Errorf("git %s in %q: %s", strings.Join(ask, " "), at, diff)
			}
		}
	}
}

func TestSubmoduleThatCannotBe(t *testing.T) {
	for _, tc := range []struct{ name, modules, want string }{
		{"no url", "", "no url found for submodule path \"sub\" in .gitmodules"},
		{"file", "[submodule \"s\"]\npath = sub\nurl = file:///etc\n", `scheme "file": git repositories are fetched by http, https, ssh and git only`},
		{"command", "[submodule \"s\"]\npath = sub\nurl = ext::sh -c id\n", `git repositories are fetched by`},
		{"path", "[submodule \"s\"]\npath = sub\nurl = /etc\n", `git repositories are fetched by`},
		{"option", "[submodule \"s\"]\npath = sub\nurl = ssh://-oProxyCommand=id/x\n", "has no host"},
		{"option as path", "[submodule \"s\"]\npath = sub\nurl = a@b:-x\n", "has no path"},
		{"itself", "[submodule \"s\"]\npath = sub\nurl = ./\n", "submodules in more than 3 submodules"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			r := newRepo(t, root, "r.git")
			r.write("a", "a")
			first := r.commit("first")
			if tc.modules != "" {
				r.write(".gitmodules", tc.modules)
				r.git("add", "-A")
			}
			r.git("update-index", "--add", "--cacheinfo", "160000,"+first+",sub")
			r.git("commit", "-q", "-m", "sub")
			head := r.git("rev-parse", "HEAD")
			if tc.name == "itself" {
				head = ring(t, r)
			}
			s := serve(t, root)
			c := newClient(t, Config{})
			c.limits.depth = 3
			_, err := c.Checkout(t.Context(), buildcontext.Repository{URL: s.URL + "/r.git", Ref: head}, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// ring makes commits each of which has the one before as its submodule.
func ring(t *testing.T, r *repo) (head string) {
	for i := range 6 {
		head = r.git("rev-parse", "HEAD")
		r.git("update-index", "--add", "--cacheinfo", "160000,"+head+",sub")
		r.git("commit", "-q", "-m", fmt.Sprint(i))
	}
	return r.git("rev-parse", "HEAD")
}

func TestSubmoduleWithoutUpdate(t *testing.T) {
	root := t.TempDir()
	r := nested(t, root)
	r.git("config", "-f", ".gitmodules", "submodule.mods/mid.update", "none")
	r.commit("no update")
	s := serve(t, root)
	dir, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/top.git"})
	if diff := cmp.Diff([]string{".gitmodules", "top.txt"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestModuleAddress(t *testing.T) {
	for _, tc := range []struct{ parent, url, want string }{
		{"https://h/a/b.git", "../c.git", "https://h/a/c.git"},
		{"https://h/a/b.git/", "../c.git", "https://h/a/c.git"},
		{"https://h/a/b.git", "./c.git", "https://h/a/b.git/c.git"},
		{"https://h/a/b.git", "../../../../c", "https://h/c"},
		{"https://u:p@h/a/b.git", "../c.git", "https://u:p@h/a/c.git"},
		{"git@h:a/b.git", "../c.git", "git@h:a/c.git"},
		{"git@h:a/b.git", "https://x/c.git", "https://x/c.git"},
		{"ssh://git@h:22/a/b.git", "../c.git", "ssh://git@h:22/a/c.git"},
		{"git://h/a", "git@x:c", "git@x:c"},
	} {
		parent, err := parseAddress(tc.parent)
		if err != nil {
			t.Fatal(err)
		}
		u, err := moduleAddress(parent, tc.url)
		if err != nil {
			t.Errorf("%s, %s: %v", tc.parent, tc.url, err)
			continue
		}
		if got := address(u); got != tc.want {
			t.Errorf("%s, %s: %s, want %s", tc.parent, tc.url, got, tc.want)
		}
	}
}

func address(u *url.URL) string {
	if u.Opaque != "" {
		return u.User.String() + "@" + u.Host + ":" + u.Opaque
	}
	return u.String()
}

// TestParseConfig compares with git's own reader.
func TestParseConfig(t *testing.T) {
	for _, text := range []string{
		"[submodule \"a\"]\n\tpath = a\n\turl = https://h/x\n",
		"[submodule \"a b\\\"c\\\\\"] # x\npath=\"a b\" ; y\nurl = one\\\n two   \n",
		"[SubModule \"A\"]\nURL = \"q # no\" and more # yes\nupdate\n",
		"; only\n# remarks\n",
		"[core]\nbare = false\n[a.b]\nc-d = 1\n",
		"[submodule \"a\"] path = x\n",
		"[submodule \"a\"]\r\n\tpath = x\r\n",
		"[submodule \"a\"]\nurl = \"tab\\tin\\nit\\\\\"\n",
		"[submodule \"a\"]\nurl =\n",
		"[submodule \"a\"\nurl = x\n",
		"[submodule \"a\nb\"]\nurl = x\n",
		"url = \"open\n", "[a]\nb = \\q\n", "[a]\n1 2\n", "[]\n", "[a]\nb c = 1\n",
	} {
		t.Run("", func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			want, ok := gitTry(t, "config", "-f", file, "--list", "-z")
			var got strings.Builder
			err := parseConfig(text, func(section, sub, key, value string) {
				if section != "" {
					got.WriteString(section + ".")
				}
				if sub != "" {
					got.WriteString(sub + ".")
				}
				got.WriteString(key + "\n" + value + "\x00")
			})
			if (err == nil) != ok {
				t.Errorf("%q: %v, git takes it: %v", text, err, ok)
			}
			// Git writes a key alone without a value.
			if ok && got.String() != strings.ReplaceAll(want, "update\x00", "update\ntrue\x00") {
				t.Errorf("%q: %q, want %q", text, got.String(), want)
			}
		})
	}
}
