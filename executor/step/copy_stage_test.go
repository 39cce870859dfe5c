package step

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// stages is a workspace with a stage to copy into, one to copy from, and a
// context.
type stages struct {
	t       testing.TB
	tree    *rootfs.Tree
	from    *plan.Stage
	other   string // the lower of the stage to copy from
	context string
	env     Env
}

func newStages(t testing.TB, onto string) *stages {
	t.Helper()
	dir, err := os.MkdirTemp(insandbox.Workspace, "c")
	must(t, err)
	space, err := rootfs.New(dir)
	must(t, err)
	t.Cleanup(func() {
		if err := space.Close(); err != nil {
			t.Error(err)
		}
		must(t, os.RemoveAll(dir))
	})
	s := &stages{t: t, from: &plan.Stage{ID: 7, Name: "other"}, context: t.TempDir()}
	lower, err := space.Mkdir()
	must(t, err)
	grow(t, lower, baseTree)
	grow(t, lower, onto)
	s.other, err = space.Mkdir()
	must(t, err)
	s.tree = space.Tree(lower)
	other := space.Tree(s.other)
	download, err := buildcontext.NewHTTP(buildcontext.HTTPConfig{UserAgent: "test"})
	must(t, err)
	s.env = Env{
		Space: space, Context: Source{Root: s.context}, Download: download,
		Stage: func(id plan.StageID) *rootfs.Tree {
			if id == s.from.ID {
				return other
			}
			return nil
		},
	}
	return s
}

func (s *stages) fromStage() plan.From { return plan.From{Kind: plan.FromStage, Stage: s.from} }

// want runs op and compares what is in its upper.
func (s *stages) want(op plan.Op, want string) (upper string) {
	s.t.Helper()
	upper, err := Do(s.t.Context(), op, s.tree, s.env)
	must(s.t, err)
	got, _ := show(s.t, upper, nil)
	var lines []string
	for line := range strings.Lines(want) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		s.t.Errorf("the upper holds\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
	return upper
}

// view shows the whole stage but for what it started from.
func (s *stages) view(paths ...string) []string {
	s.t.Helper()
	root, release, err := s.tree.View(s.t.Context())
	must(s.t, err)
	defer func() { must(s.t, release()) }()
	_, all := show(s.t, root, nil)
	var lines []string
	for _, p := range paths {
		lines = append(lines, all[p])
	}
	return lines
}

func TestCopyStep(t *testing.T) {
	s := newStages(t, "real/ 0700 5:5\nreal/old <o>\nlink -> /real\n")
	grow(t, s.context, "a.txt <a>\nd/c <c>\nd/old <new>\nd/e/\n")
	op := cp("/link", "d")
	s.want(&op, "real/ 0700 5:5\nreal/c <c>\nreal/e/\nreal/old <new>")
	op = cp("/p/q/", "a.txt")
	s.want(&op, "p/\np/q/\np/q/a.txt <a>")
	op = cp("/p/q/", "a.txt", "nope")
	if _, err := Do(t.Context(), &op, s.tree, s.env); err == nil || !strings.Contains(err.Error(), `"/nope": not found`) {
		t.Errorf("missing source: %v", err)
	}
	op = cp("/x", "*.nope")
	s.want(&op, "")
	if got, want := s.view("link", "real/old", "p/q/a.txt"), []string{"link -> /real", "real/old <new>", "p/q/a.txt <a>"}; !slices.Equal(got, want) {
		t.Errorf("the stage holds %q, want %q", got, want)
	}
}

func TestCopyLinked(t *testing.T) {
	s := newStages(t, "real/\ncur -> /real\nopt/x/ 0700 5:5\nopt/x/keep <k>\ndir/f <f>\n")
	grow(t, s.context, "a.txt <a>\nd/b <b>\n")
	link := func(op *plan.Copy) { op.Link = true }
	op := with(cp("/cur/a.txt", "a.txt"), link)
	s.want(&op, "cur/\ncur/a.txt <a>")
	op = with(cp("/opt/x/", "a.txt", "d"), link)
	s.want(&op, "opt/\nopt/x/\nopt/x/a.txt <a>\nopt/x/b <b>")
	op = with(cp("/dir", "a.txt"), link)
	s.want(&op, "dir <a>")
	op = with(cp("/new/d/", "d"), func(op *plan.Copy) { op.Link, op.Chown = true, "12:13" })
	s.want(&op, "new/ 12:13\nnew/d/ 12:13\nnew/d/b <b> 12:13")
	// --chmod makes it a copy like any other.
	op = with(cp("/opt/x/", "d"), func(op *plan.Copy) { op.Link, op.Chmod = true, "640" })
	s.want(&op, "opt/\nopt/x/\nopt/x/b <b> 0640")
	want := []string{"cur/", "real/", "opt/x/", "opt/x/keep <k>", "dir <a>", "new/d/b <b> 12:13"}
	if got := s.view("cur", "real", "opt/x", "opt/x/keep", "dir", "new/d/b"); !slices.Equal(got, want) {
		t.Errorf("the stage holds %q, want %q", got, want)
	}
}

func TestCopyFromStage(t *testing.T) {
	s := newStages(t, "")
	grow(t, s.other, "d/f <f> 4711 5:6\nd/g = d/f\nd/l -> f 7:7\nd/p | 0620\nd/sub/ 2750 8:8\nd/sub/x <x> 0600 8:8\n")
	grow(t, s.context, "d/f <context>\n")
	dev := filepath.Join(s.other, "d/null")
	must(t, unix.Mknod(dev, unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
	must(t, unix.Chmod(dev, 0o640))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(sock)
	must(t, unix.Bind(sock, &unix.SockaddrUnix{Name: filepath.Join(s.other, "d/sock")}))
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	attrs := map[string][]byte{"user.note": []byte("hi"), "security.capability": capability}
	for name, value := range attrs {
		must(t, unix.Setxattr(filepath.Join(s.other, "d/sub/x"), name, value, 0))
	}
	must(t, unix.Setxattr(filepath.Join(s.other, "d/sub"), "user.dir", []byte("d"), 0))
	must(t, unix.Setxattr(filepath.Join(s.other, "d/f"), "user.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(filepath.Join(s.context, "d/f"), "user.note", []byte("host"), 0))

	op := plan.Copy{From: s.fromStage(), Paths: []string{"/d"}, Dest: "/x"}
	upper := s.want(&op, `x/
		x/f <f> 4711 5:6
		x/g = x/f
		x/l -> f 7:7
		x/null ? 20640 0640
		x/p | 0620
		x/sub/ 2750 8:8
		x/sub/x <x> 0600 8:8`)
	for name, want := range attrs {
		got := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(upper, "x/sub/x"), name, got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("attribute %s: %x, %v", name, got[:max(n, 0)], err)
		}
	}
	if _, err := unix.Getxattr(filepath.Join(upper, "x/sub"), "user.dir", make([]byte, 8)); err != nil {
		t.Errorf("attribute of a directory: %v", err)
	}
	if _, err := unix.Getxattr(filepath.Join(upper, "x/f"), "user.overlay.opaque", make([]byte, 8)); err == nil {
		t.Error("a mark of an overlay was copied")
	}
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(upper, "x/null"), &st))
	if st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device %d", st.Rdev)
	}
	op = plan.Copy{From: s.fromStage(), Paths: []string{"/d/null", "/d/p", "/d/sock"}, Dest: "/y/", Chown: "app"}
	s.want(&op, "y/ 1000:1000\ny/null ? 20640 0640 1000:1000\ny/p | 0620 1000:1000")
	op = cp("/z", "d")
	upper = s.want(&op, "z/\nz/f <context>")
	if _, err := unix.Getxattr(filepath.Join(upper, "z/f"), "user.note", make([]byte, 8)); err == nil {
		t.Error("an attribute of the host's file was copied")
	}
	op = plan.Copy{From: plan.From{Kind: plan.FromScratch}, Paths: []string{"/"}, Dest: "/e/"}
	s.want(&op, "e/")
	op.From = plan.From{Kind: plan.FromStage, Stage: &plan.Stage{ID: 9, Name: "gone"}}
	if _, err := Do(t.Context(), &op, s.tree, s.env); err == nil || !strings.Contains(err.Error(), "stage gone is not there") {
		t.Errorf("unknown stage: %v", err)
	}
}

// archive is a compressed tar with a file and a directory of its own owners.
func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	must(t, w.WriteHeader(&tar.Header{Name: "top.txt", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 1000, Gid: 1000, Size: 3, ModTime: time.Unix(1500000000, 0)}))
	_, err := w.Write([]byte("top"))
	must(t, err)
	must(t, w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 5, Gid: 6}))
	must(t, w.WriteHeader(&tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../top.txt", Mode: 0o777}))
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

// unpacked is what archive holds, as show has it.
const unpacked = "%[1]s/\n%[1]s/d/ 0750 5:6\n%[1]s/d/l -> ../top.txt\n%[1]s/top.txt <top> 0600 1000:1000"

// raw is a file's contents as show has it.
func raw(b []byte) string {
	q := fmt.Sprintf("%q", b)
	return "<" + q[1:len(q)-1] + ">"
}

func TestAddArchive(t *testing.T) {
	s := newStages(t, "real/\nlink -> real\n")
	packed := archive(t)
	must(t, os.WriteFile(filepath.Join(s.context, "a.bin"), packed, 0o644))
	must(t, os.WriteFile(filepath.Join(s.context, "cut.tar.gz"), packed[:len(packed)-30], 0o644))
	must(t, os.WriteFile(filepath.Join(s.context, "short.tar.gz"), packed[:30], 0o644))
	must(t, os.WriteFile(filepath.Join(s.context, "fake.tar.gz"), []byte("no archive"), 0o644))
	must(t, os.Mkdir(filepath.Join(s.context, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.context, "d/a.tgz"), packed, 0o644))
	add := func(op plan.Copy) *plan.Copy { op.Add = true; return &op }
	no := false
	s.want(add(cp("/out", "a.bin")), fmt.Sprintf(unpacked, "out"))
	s.want(add(cp("/link/", "a.bin")), fmt.Sprintf(unpacked, "real"))
	s.want(add(with(cp("/own", "a.bin"), func(op *plan.Copy) { op.Chown, op.Chmod = "app:extra", "600" })),
		"own/ 1000:2000\nown/d/ 0750 1000:2000\nown/d/l -> ../top.txt 1000:2000\nown/top.txt <top> 0600 1000:2000")
	s.want(add(cp("/mixed/", "a.bin", "fake.tar.gz")), fmt.Sprintf(unpacked, "mixed")+"\nmixed/fake.tar.gz <no archive>")
	s.want(add(cp("/dir", "d")), "dir/\ndir/a.tgz "+raw(packed))
	s.want(add(cp("/short/", "short.tar.gz")), "short/\nshort/short.tar.gz "+raw(packed[:30]))
	s.want(add(with(cp("/kept/", "a.bin"), func(op *plan.Copy) { op.Unpack = &no })), "kept/\nkept/a.bin "+raw(packed))
	op := cp("/copied", "a.bin")
	s.want(&op, "copied "+raw(packed))
	if _, err := Do(t.Context(), add(cp("/cut", "cut.tar.gz")), s.tree, s.env); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("a cut archive: %v", err)
	}
	if _, err := Do(t.Context(), add(cp("/etc/passwd", "a.bin")), s.tree, s.env); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("an archive to a file: %v", err)
	}
}

func TestAddURL(t *testing.T) {
	s := newStages(t, "")
	packed := archive(t)
	yes := true
	mux := http.NewServeMux()
	mux.HandleFunc("/dir/hello.txt", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
		w.Header().Set("Content-Disposition", `attachment; filename="../../etc/passwd"`)
		w.Write([]byte("hello\n"))
	})
	mux.HandleFunc("/a.tgz", func(w http.ResponseWriter, r *http.Request) { w.Write(packed) })
	server := httptest.NewServer(mux)
	defer server.Close()
	remote := func(name, dest string, set func(*plan.Copy)) *plan.Copy {
		op := plan.Copy{Add: true, Dest: dest, Remotes: []plan.Remote{{URL: server.URL + "/" + name, Name: filepath.Base(name)}}}
		set(&op)
		return &op
	}
	plainly := func(*plan.Copy) {}
	upper := s.want(remote("dir/hello.txt", "/dl/", plainly), `dl/
		dl/hello.txt <hello\n> 0600`)
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(upper, "dl/hello.txt"), &st))
	if st.Mtim.Sec != 1577836800 {
		t.Errorf("modified %d", st.Mtim.Sec)
	}
	s.want(remote("dir/hello.txt", "/exact", func(op *plan.Copy) {
		op.Chown, op.Chmod = "app", "755"
		op.Remotes[0].Checksum = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	}), `exact <hello\n> 0755 1000:1000`)
	s.want(remote("a.tgz", "/tgz/", plainly), "tgz/\ntgz/a.tgz "+raw(packed)+" 0600")
	s.want(remote("a.tgz", "/tar/", func(op *plan.Copy) { op.Unpack = &yes }), fmt.Sprintf(unpacked, "tar"))
	s.want(remote("dir/hello.txt", "/no/", func(op *plan.Copy) { op.Unpack = &yes }), `no/
		no/hello.txt <hello\n> 0600`)
	for want, op := range map[string]*plan.Copy{
		"digest mismatch sha256:5891b5b": remote("dir/hello.txt", "/bad", func(op *plan.Copy) {
			op.Remotes[0].Checksum = "sha256:" + strings.Repeat("0", 64)
		}),
		"404": remote("missing", "/bad", plainly),
	} {
		if _, err := Do(t.Context(), op, s.tree, s.env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if got := s.view("bad"); got[0] != "" {
		t.Errorf("a failed step left %q", got)
	}
}

func TestWorkdir(t *testing.T) {
	s := newStages(t, "real/\nlink -> /real\nup -> ../../..\n")
	epoch := time.Unix(1577836800, 0)
	s.want(&plan.Workdir{Path: "/home/app"}, "")
	s.want(&plan.Workdir{Path: "/only/this"}, "only/\nonly/this/")
	s.want(&plan.Workdir{Path: "/home/app/sub/deep", User: "app"}, `home/
		home/app/ 0750 1000:1000
		home/app/sub/ 1000:1000
		home/app/sub/deep/ 1000:1000`)
	s.want(&plan.Workdir{Path: "/made/here", User: "1001:2000"}, "made/ 1001:2000\nmade/here/ 1001:2000")
	s.want(&plan.Workdir{Path: "/unknown", User: "ghost"}, "unknown/")
	s.want(&plan.Workdir{Path: "/link/sub"}, "real/\nreal/sub/")
	s.want(&plan.Workdir{Path: "/proc/self/fd/3"}, "proc/\nproc/self/\nproc/self/fd/\nproc/self/fd/3/")
	upper := s.want(&plan.Workdir{Path: "/up/w1/w2", Time: &epoch}, "w1/\nw1/w2/")
	for _, name := range []string{"w1", "w1/w2"} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(upper, name), &st))
		if st.Mtim.Sec != epoch.Unix() || st.Mtim.Nsec != 0 {
			t.Errorf("%s: modified %d.%09d", name, st.Mtim.Sec, st.Mtim.Nsec)
		}
	}
	for path, want := range map[string]string{"/etc/passwd": "not a directory", "/etc/passwd/x": "not a directory"} {
		_, err := Do(t.Context(), &plan.Workdir{Path: path}, s.tree, s.env)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	_, err := Do(t.Context(), &plan.Workdir{Path: "/x", User: "4294967296"}, s.tree, s.env)
	if err == nil || !strings.Contains(err.Error(), "ids must be in range") {
		t.Errorf("a uid that is none: %v", err)
	}
}
