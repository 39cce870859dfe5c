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
