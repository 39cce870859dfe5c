package git

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// TestKeptGitDirIsLikeBuildKits makes a checkout with git's own commands, in the
// order in which BuildKit runs them, and asks git about both.
func TestKeptGitDirIsLikeBuildKits(t *testing.T) {
	root := t.TempDir()
	r := sample(t, root)
	s := serve(t, root)
	commit := r.git("rev-parse", "light")
	for _, tc := range []struct {
		ref string
		tag bool // annotated
	}{
		{"main", false}, {"light", false}, {"heavy", true}, {"refs/tags/light", false}, {"refs/tags/heavy", true},
		{"refs/heads/side", false}, {"heads/side", false}, {"refs/pull/1/head", false}, {commit, false},
	} {
		t.Run(tc.ref, func(t *testing.T) {
			want := asBuildKit(t, r, s.URL+"/r.git", tc.ref, tc.tag)
			got, _ := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", Ref: tc.ref, KeepGitDir: true})
			for _, ask := range [][]string{
				{"rev-parse", "HEAD"},
				{"status", "--porcelain", "--ignored"},
				{"log", "--format=%H %s %ct", "--decorate=full"},
				{"for-each-ref"},
				{"ls-files", "--stage"},
				{"config", "--local", "--list"},
				{"fsck", "--full", "--strict"},
				{"rev-parse", "--is-shallow-repository"},
				{"diff-index", "--cached", "HEAD"},
			} {
				if tc.ref == commit && ask[0] == "for-each-ref" {
					continue // BuildKit's has a random name
				}
				if diff := cmp.Diff(git(t, want, ask...), git(t, got, ask...)); diff != "" {
					t.Errorf("git %s: %s", strings.Join(ask, " "), diff)
				}
			}
			if _, err := os.Lstat(filepath.Join(got, ".git/hooks")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("hooks: %v", err)
			}
		})
	}
}

// asBuildKit does what BuildKit v0.34.2 does (source/git, tryRemoteFetch and
// checkout).
func asBuildKit(t *testing.T, r *repo, url, ref string, tag bool) string {
	bare, dir := filepath.Join(t.TempDir(), "bare"), t.TempDir()
	git(t, "/", "-c", "init.defaultBranch=master", "init", "-q", "--bare", bare)
	git(t, bare, "remote", "add", "origin", url)
	to := "tags/" + ref
	if strings.HasPrefix(ref, "refs/tags/") {
		to = ref
	}
	pull := ref + ":" + ref
	switch {
	case isCommitHash(ref):
		git(t, bare, "fetch", "-q", "--tags", "origin", ref)
		pull = "refs/buildkit/x"
		git(t, bare, "update-ref", pull, ref)
	default:
		git(t, bare, "fetch", "-q", "--depth=1", "--no-tags", "origin", "--force", "--", ref+":"+to)
	}
	if tag {
		pull = ref + ":refs/tags/" + strings.TrimPrefix(ref, "refs/tags/")
	}
	git(t, dir, "-c", "init.defaultBranch=master", "init", "-q")
	git(t, dir, "remote", "add", "origin", "file://"+bare)
	git(t, dir, "fetch", "-q", "-u", "--depth=1", "--", "origin", pull)
	git(t, dir, "-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD")
	git(t, dir, "remote", "set-url", "origin", url)
	if err := os.Remove(filepath.Join(dir, ".git/FETCH_HEAD")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKeptGitDirAndCommitTime(t *testing.T) {
	root := t.TempDir()
	sample(t, root)
	s := serve(t, root)
	dir, out := checkout(t, newClient(t, Config{}), buildcontext.Repository{URL: s.URL + "/r.git", KeepGitDir: true, CommitTime: true})
	n := 0
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err == nil && !info.ModTime().Equal(out.Time) {
			t.Errorf("%s is of %v", p, info.ModTime())
		}
		n++
		return err
	})
	if err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}
	if got := git(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("status: %s", got)
	}
}

func TestLocalRefNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"refs/heads/a": true, "refs/heads/a/b.c": true,
		"refs/heads/../../x": false, "refs/heads/.a": false, "refs/heads/a.lock": false, "refs/heads//a": false,
		"refs/heads/a b": false, "refs/heads/a\nb": false, "refs/heads/a^": false, "/etc": false, "": false,
	} {
		if got := validRef(name); got != ok {
			t.Errorf("%q: %v", name, got)
		}
	}
}
