package hostile

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Git is a web server with git repositories, made by the real git, which also
// serves them where no rule says otherwise.
type Git struct {
	*Server
	Root string // what is served
	t    testing.TB
}

// StartGit starts one; repositories are made in its Root.
func StartGit(t testing.TB, o Options, rules ...Rule) *Git {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	back := &cgi.Handler{
		Path: path, Args: []string{"http-backend"},
		Env: append(gitEnv(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
	}
	files := http.FileServer(http.Dir(root))
	o.Back = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".git/") {
			back.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
	return &Git{Server: Serve(t, o, rules...), Root: root, t: t}
}

// Old has a repository served by version 0 of the protocol only.
func (g *Git) Old(name string) {
	g.On(Rule{Path: "/" + name + ".git/git-upload-pack", Do: func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		g.back.ServeHTTP(w, r)
	}})
}

func gitEnv() []string {
	const date = "1577836800 +0000"
	return append(os.Environ(), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_CONFIG_COUNT=4", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always",
		"GIT_CONFIG_KEY_2=init.defaultBranch", "GIT_CONFIG_VALUE_2=main",
		"GIT_CONFIG_KEY_3=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_3=true",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE="+date)
}

// Repository is a repository of a Git.
type Repository struct {
	URL string
	dir string
	t   testing.TB
}

// Repository makes one that is empty, called name.git.
func (g *Git) Repository(name string) *Repository {
	g.t.Helper()
	r := &Repository{URL: g.URL + "/" + name + ".git", dir: filepath.Join(g.Root, name+".git"), t: g.t}
	r.run(g.Root, nil, "init", "-q", "--bare", r.dir)
	return r
}

func (r *Repository) run(dir string, stdin []byte, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, gitEnv(), bytes.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

// Object writes an object of a kind, also one that git would not make, and
// returns its hash.
func (r *Repository) Object(kind, data string) string {
	r.t.Helper()
	return r.run(r.dir, []byte(data), "hash-object", "-t", kind, "-w", "--literally", "--stdin")
}

// TreeEntry is one of a tree object.
type TreeEntry struct {
	Mode string // as git writes it: 100644, 120000 a link, 40000 a tree, 160000 a submodule
	Name string
	Hash string // of the object
}

// Tree writes a tree of entries, whatever they say.
func (r *Repository) Tree(entries ...TreeEntry) string {
	r.t.Helper()
	var b strings.Builder
	for _, e := range entries {
		raw, err := hex.DecodeString(e.Hash)
		if err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\x00%s", e.Mode, e.Name, raw)
	}
	return r.Object("tree", b.String())
}

// File is an entry with a new object.
func (r *Repository) File(name, data string) TreeEntry {
	r.t.Helper()
	return TreeEntry{"100644", name, r.Object("blob", data)}
}

// Link is a symbolic link.
func (r *Repository) Link(name, target string) TreeEntry {
	r.t.Helper()
	return TreeEntry{"120000", name, r.Object("blob", target)}
}

// Dir is a directory.
func (r *Repository) Dir(name string, entries ...TreeEntry) TreeEntry {
	r.t.Helper()
	return TreeEntry{"40000", name, r.Tree(entries...)}
}

// Commit makes a commit of a tree the head of a branch, and returns its hash.
// The branch's name may be one that git refuses.
func (r *Repository) Commit(branch string, entries ...TreeEntry) string {
	r.t.Helper()
	const who = "a <a@example.com> 1577836800 +0000"
	commit := r.Object("commit", "tree "+r.Tree(entries...)+"\nauthor "+who+"\ncommitter "+who+"\n\nx\n")
	ref := filepath.Join(r.dir, "refs/heads", branch)
	err := os.MkdirAll(filepath.Dir(ref), 0o755)
	if err == nil {
		err = os.WriteFile(ref, []byte(commit+"\n"), 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return commit
}

// Advertise is the answer of a server that knows version 0 of git's protocol
// only, with refs, hash and name with a space between them, as they are.
func Advertise(refs ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		var b strings.Builder
		b.WriteString(packet("# service=git-upload-pack\n") + "0000")
		for i, ref := range refs {
			if i == 0 {
				ref += "\x00side-band-64k ofs-delta allow-tip-sha1-in-want allow-reachable-sha1-in-want shallow"
			}
			b.WriteString(packet(ref + "\n"))
		}
		b.WriteString("0000")
		_, _ = w.Write([]byte(b.String())) // to a client that may have gone
	}
}

// Sideband is the answer to a request for a pack that holds no pack but lines of
// the server's for the user (gitprotocol-pack, side-band), and an error.
func Sideband(progress, fatal string) http.HandlerFunc {
	return Answer(http.StatusOK, http.Header{"Content-Type": {"application/x-git-upload-pack-result"}},
		[]byte(packet("packfile\n")+packet("\x02"+progress)+packet("\x03"+fatal)+"0000"))
}

// packet is a line of git's protocol: its length in four hex digits before it.
func packet(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
