package git

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// sample makes a repository of several commits with files of all kinds.
func sample(t *testing.T, root string) *repo {
	r := newRepo(t, root, "r.git")
	long := strings.Repeat("a line of text that deltas are made of\n", 500)
	r.write("README", "one\n")
	r.write("long", long)
	r.write("dir/run.sh", "#!/bin/sh\n")
	r.write("dir/sub/x.txt", "x\n")
	r.write("empty", "")
	if err := os.Symlink("dir/run.sh", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	r.commit("one")
	r.git("tag", "light")
	r.write("long", long+"more\n")
	r.write("dir/long2", "first\n"+long)
	r.commit("two")
	r.git("tag", "-a", "-m", "text", "heavy")
	r.git("tag", "-a", "-m", "text", "nested", "heavy")
	r.git("checkout", "-q", "-b", "side", "light")
	r.write("README", "side\n")
	r.commit("side")
	r.git("update-ref", "refs/pull/1/head", "side")
	r.git("checkout", "-q", "main")
	r.git("repack", "-q", "-a", "-d")
	return r
}

func TestCheckoutIsWhatGitChecksOut(t *testing.T) {
	root := t.TempDir()
	r := sample(t, root)
	s := serve(t, root)
	one := r.git("rev-parse", "light")
	for _, tc := range []struct{ ref, local, subdir string }{
		{"", "main", ""},
		{"main", "main", ""},
		{"light", "light", ""},
		{"heavy", "heavy", ""},
		{"nested", "nested", ""},
		{"refs/tags/heavy", "heavy", ""},
		{"refs/heads/side", "side", ""},
		{"heads/side", "side", ""},
		{"side", "side", "dir"},
		{"refs/pull/1/head", "side", ""},
		{"pull/1/head", "side", "/dir//sub/"},
		{one, one, ""},
	} {
		t.Run(tc.ref+":"+tc.subdir, func(t *testing.T) {
			want := filepath.Join(t.TempDir(), "w")
			git(t, "/", "clone", "-q", r.dir, want)
			git(t, want, "-c", "advice.detachedHead=false", "checkout", "-q", r.git("rev-parse", tc.local+"^{commit}"))
			if err := os.RemoveAll(filepath.Join(want, ".git")); err != nil {
				t.Fatal(err)
			}
			dir, out := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", Ref: tc.ref, Subdir: tc.subdir})
			if diff := cmp.Diff(tree(t, filepath.Join(want, tc.subdir)), tree(t, dir)); diff != "" {
				t.Error(diff)
			}
			if hash := r.git("rev-parse", tc.local+"^{commit}"); out.Commit != hash {
				t.Errorf("commit %s, want %s", out.Commit, hash)
			}
			if out.Time.Unix() != 1577836800 {
				t.Errorf("time %v", out.Time)
			}
		})
	}
}

// TestEveryTransport fetches a branch, a tag and a commit that no ref names, by
// every way and both versions of the protocol.
func TestEveryTransport(t *testing.T) {
	root := t.TempDir()
	r := sample(t, root)
	r.git("checkout", "-q", "--detach", "light")
	r.write("only", "here\n")
	old := r.commit("a commit of the past")
	r.commit("and one after it")
	r.git("branch", "past")
	r.git("checkout", "-q", "main")

	web, old0 := serve(t, root), serveOld(t, root)
	sshAddr, ask := sshServer(t, root, true)
	sshOld, askOld := sshServer(t, root, false)
	daemon := gitDaemon(t, root)
	for _, tc := range []struct {
		name, url string
		ask       func(context.Context, []byte) ([]byte, error)
	}{
		{"http", web.URL + "/r.git", nil},
		{"http version 0", old0.URL + "/r.git", nil},
		{"ssh", "ssh://me@" + sshAddr + r.dir, ask},
		{"ssh version 0", "ssh://" + sshOld + r.dir, askOld},
		{"git daemon", "git://" + daemon + "/r.git", nil},
	} {
		for _, ref := range []string{"", "heavy", "refs/pull/1/head", old} {
			t.Run(tc.name+" "+ref, func(t *testing.T) {
				c := newClient(t, Config{Agent: tc.ask})
				dir, out := checkout(t, c, buildcontext.Repository{URL: tc.url, Ref: ref})
				name := ref
				if ref == "" {
					name = "main"
				}
				if want := r.git("rev-parse", name+"^{commit}"); out.Commit != want {
					t.Errorf("commit %s, want %s", out.Commit, want)
				}
				if want := r.git("ls-tree", "-r", "--name-only", out.Commit); want != strings.Join(files(t, dir), "\n") {
					t.Errorf("files %v, want %s", files(t, dir), want)
				}
			})
		}
	}
}

// TestWishes: what can be asked for beside a ref, and BuildKit's words where it
// is not there.
func TestWishes(t *testing.T) {
	root := t.TempDir()
	r := sample(t, root)
	newRepo(t, root, "empty.git")
	s := serve(t, root)
	light, main := r.git("rev-parse", "light"), r.git("rev-parse", "main")
	tag := r.git("rev-parse", "heavy")
	for _, tc := range []struct {
		name string
		repo buildcontext.Repository
		want string // commit
		err  string
	}{
		{"checksum", buildcontext.Repository{Commit: main}, main, ""},
		{"beginning", buildcontext.Repository{Commit: main[:7]}, main, ""},
		{"of a tag's commit", buildcontext.Repository{Ref: "heavy", Commit: main}, main, ""},
		{"of a tag", buildcontext.Repository{Ref: "heavy", Commit: tag}, main, ""},
		{"of a commit", buildcontext.Repository{Ref: light, Commit: light[:9]}, light, ""},
		{"by commit", buildcontext.Repository{Ref: "main", Commit: light, FetchByCommit: true}, light, ""},
		{"by commit alone", buildcontext.Repository{Commit: light, FetchByCommit: true}, light, ""},

		{"other", buildcontext.Repository{Commit: light}, "", "expected checksum to match " + light + ", got " + main},
		{"other than a tag's", buildcontext.Repository{Ref: "heavy", Commit: "00"}, "", "expected checksum to match 00, got " + tag + " or " + main},
		{"other than the commit", buildcontext.Repository{Ref: light, Commit: main}, "", "expected checksum to match " + main + ", got " + light},
		{"no hash", buildcontext.Repository{Commit: "main"}, "", "invalid checksum main for Git URL, expected hex commit hash"},
		{"no ref", buildcontext.Repository{Ref: "gone"}, "", "repository does not contain ref gone"},
		{"a short hash is a name", buildcontext.Repository{Ref: light[:9]}, "", "repository does not contain ref " + light[:9]},
		{"option", buildcontext.Repository{Ref: "--upload-pack=id"}, "", `invalid git ref "--upload-pack=id"`},
		{"two lines", buildcontext.Repository{Ref: "a\nb"}, "", "invalid git ref"},
		{"gone commit", buildcontext.Repository{Ref: strings.Repeat("1", 40)}, "", "the server did not send 1111"},
		{"a tree", buildcontext.Repository{Ref: r.git("rev-parse", "main^{tree}")}, "", "is a tree, not a commit"},
		{"by a short commit", buildcontext.Repository{Commit: light[:9], FetchByCommit: true}, "", "fetch-by-commit requires a full commit SHA checksum, got \"" + light[:9] + "\""},
		{"by no commit", buildcontext.Repository{FetchByCommit: true}, "", "fetch-by-commit requires a checksum or a commit SHA ref"},
		{"no directory", buildcontext.Repository{Subdir: "none"}, "", "invalid subdir none: lstat none: file does not exist"},
		{"a file", buildcontext.Repository{Subdir: "dir/run.sh"}, "", `git subpath "dir/run.sh" contains non-directory "dir/run.sh"`},
		{"a link", buildcontext.Repository{Subdir: "link/x"}, "", `git subpath "link/x" contains non-directory "link"`},
		{"empty", buildcontext.Repository{URL: s.URL + "/empty.git"}, "", "could not find default branch for repository"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.repo.URL == "" {
				tc.repo.URL = s.URL + "/r.git"
			}
			c := newClient(t, Config{})
			out, err := c.Checkout(t.Context(), tc.repo, t.TempDir())
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err == nil && out.Commit != tc.want {
				t.Errorf("commit %s, want %s", out.Commit, tc.want)
			}
		})
	}
}

func TestSHA256(t *testing.T) {
	root := t.TempDir()
	r := newRepo(t, root, "r.git", "--object-format=sha256")
	r.write("a", strings.Repeat("a line\n", 1000))
	r.commit("one")
	r.write("b", strings.Repeat("a line\n", 1000)+"more")
	head := r.commit("two")
	r.git("repack", "-q", "-a", "-d")
	s := serve(t, root)
	for _, ref := range []string{"", head} {
		dir, out := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", Ref: ref, KeepGitDir: true})
		if out.Commit != head || git(t, dir, "status", "--porcelain") != "" || git(t, dir, "rev-parse", "HEAD") != head {
			t.Errorf("commit %s, want %s", out.Commit, head)
		}
		git(t, dir, "fsck", "--full", "--strict")
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	for _, address := range []string{"", "file:///etc", "ext::sh -c id", "/etc", "../x", "ssh://-oProxyCommand=id/x", "git@-h:x", "git@h:-x", "git@h:",
		"http:///x", "https://h", "git://h/a%0ab", "git://h/a%00b", "fd::17", "ftp://h/x", "ssh://h"} {
		if u, err := parseAddress(address); err == nil {
			t.Errorf("%q is taken for %q", address, u)
		}
	}
}
