package step

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// TestHostileTrees copies into, and from, trees whose links lead everywhere.
// Nothing outside may be touched or read.
func TestHostileTrees(t *testing.T) {
	trees := []string{
		"d -> /\n", "d -> ../../../../../../../..\n", "d -> ../outside\n", "d -> OUT\n", "d -> /../../OUT/..\n",
		"a -> b\nb -> ../..\nd -> a/..\n", "d -> a\na -> OUT/canary\n", "d/x -> OUT\n", "d/x -> ../../outside\n",
		"d/x/f -> OUT/canary\n", "d/x -> .\n", "d/x -> ..\n", "d -> d\n", "d -> d/d\n", "d/x -> /proc/self/root\n",
		"d -> /proc/self/cwd\n", "d/f -> OUT/new\n", "d/x/f -> ../../../outside/new\n",
	}
	dests := []string{"/d", "/d/", "/d/x", "/d/x/", "/d/x/f", "/d/f", "/d/../../outside/f", "/d/x/../../../outside/"}
	for _, tree := range trees {
		for _, dest := range dests {
			for _, paths := range [][]string{{"f"}, {"x"}, {"*"}, {"x/x"}} {
				hostile(t, tree, dest, paths)
			}
		}
	}
}

func hostile(t *testing.T, tree, dest string, paths []string) {
	t.Helper()
	top := t.TempDir()
	defer os.RemoveAll(top)
	outside, root, src := filepath.Join(top, "outside"), filepath.Join(top, "root"), filepath.Join(top, "src")
	tree = strings.ReplaceAll(tree, "OUT", outside)
	grow(t, top, "outside/canary <alive>\nroot/\nsrc/f <f>\nsrc/x/x/f <f>\nsrc/x/f <f>\n")
	grow(t, root, tree)
	_, before := show(t, outside, nil)
	op := cp(dest, paths...)
	err := copyAll(t, root, Source{Root: src}, &op)
	if changed, _ := show(t, outside, before); len(changed) > 0 {
		t.Errorf("%q, COPY %v %s: outside became %q", tree, paths, dest, changed)
	}
	if err == nil {
		// The other way round: nothing may be read from outside either.
		op = plan.Copy{Paths: []string{"d", "d/x", "d/*"}, Dest: "/copied/"}
		err = copyAll(t, src, Source{Root: root, Stage: true, Owners: true}, &op)
		_, all := show(t, src, nil)
		for _, line := range all {
			if strings.Contains(line, "alive") {
				t.Errorf("%q: %s came from outside", tree, line)
			}
		}
	}
	if err != nil && strings.Contains(err.Error(), "alive") {
		t.Errorf("%q: %v", tree, err)
	}
}

// TestHostileNames: names are bytes; nothing in them means anything.
func TestHostileNames(t *testing.T) {
	src, root := t.TempDir(), t.TempDir()
	names := []string{"new\nline", "\xff\xfe", "-rf", "a\\b", "a*b", strings.Repeat("x", 255), " ", "...", "\x1b[2J", ".wh.x"}
	for _, n := range names {
		must(t, os.WriteFile(filepath.Join(src, n), []byte("x"), 0o644))
		must(t, os.Mkdir(filepath.Join(src, n[:min(len(n), 200)]+".d"), 0o755))
	}
	op := cp("/", ".")
	must(t, copyAll(t, root, Source{Root: src}, &op))
	want, _ := show(t, src, nil)
	if got, _ := show(t, root, nil); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestDeepTree: paths may be longer than one call takes.
func TestDeepTree(t *testing.T) {
	src, root := t.TempDir(), t.TempDir()
	const depth = 100
	name := strings.Repeat("d", 100)
	must(t, deep(src, name, depth))
	op := cp("/x", ".")
	must(t, copyAll(t, root, Source{Root: src}, &op))
	fd, err := beneath.OpenRoot(root)
	must(t, err)
	at, err := beneath.Resolve(fd, "/x/"+strings.Repeat(name+"/", depth)+"f")
	must(t, err)
	if at.Leaf != "f" {
		t.Errorf("the file at the bottom is not there: %+v", at)
	}
	at.Close()
	unix.Close(fd)
	op = cp("/y", strings.Repeat(name+"/", depth)+"f")
	must(t, copyAll(t, root, Source{Root: src}, &op))
}

func deep(dir, name string, depth int) error {
	fd, err := beneath.OpenRoot(dir)
	for range depth {
		if err == nil {
			err = unix.Mkdirat(fd, name, 0o755)
		}
		if err == nil {
			var next int
			next, err = beneath.Openat(fd, name, beneath.OpenDir, 0)
			unix.Close(fd)
			fd = next
		}
	}
	for _, f := range []string{"f", "g"} {
		if err == nil && f == "f" {
			var file int
			file, err = beneath.Openat(fd, f, unix.O_CREAT|unix.O_WRONLY, 0o644)
			unix.Close(file)
		} else if err == nil {
			err = unix.Linkat(fd, "f", fd, f, 0)
		}
	}
	return errors.Join(err, unix.Close(fd))
}

// FuzzResolve makes a small tree of directories, files and links from its input
// and holds the walk against the library that resolves such paths by name.
func FuzzResolve(f *testing.F) {
	f.Add("a/;a/b/;l>../a;m>/l/b;f", "l/../m/x")
	f.Add("a>b;b>c;c>/", "a/b/c")
	f.Add("d/;d/up>../../..;d/e>up/up", "d/e/../etc/passwd")
	f.Add("x>y;y>x", "x/z")
	f.Fuzz(func(t *testing.T, tree, p string) {
		if len(tree) > 200 || len(p) > 200 || strings.ContainsRune(tree+p, 0) {
			return
		}
		root := filepath.Join(t.TempDir(), "root")
		must(t, os.Mkdir(root, 0o755))
		fuzzTree(root, tree)
		fd, err := beneath.OpenRoot(root)
		must(t, err)
		defer unix.Close(fd)
		at, err := beneath.Resolve(fd, p)
		if err != nil {
			return
		}
		defer at.Close()
		real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", at.FD))
		must(t, err)
		if real != filepath.Join(root, at.Path) {
			t.Fatalf("%q, %q: open is %s, named %s", tree, p, real, at.Path)
		}
		want, err := securejoin.SecureJoin(root, p)
		if err != nil {
			return
		}
		if got := filepath.Join(root, at.Name()); got != want {
			t.Errorf("%q, %q: %s, want %s", tree, p, got, want)
		}
	})
}

// fuzzTree makes what it can.
func fuzzTree(root, tree string) {
	for _, part := range strings.Split(tree, ";") {
		name, target, link := strings.Cut(part, ">")
		name = filepath.Join(root, filepath.Clean("/"+name))
		// Only directories on the way: the test itself must stay inside.
		if parent, err := filepath.EvalSymlinks(filepath.Dir(name)); err != nil || parent != filepath.Dir(name) {
			continue
		}
		switch {
		case link:
			os.Symlink(target, name)
		case strings.HasSuffix(part, "/"):
			os.Mkdir(name, 0o755)
		default:
			os.WriteFile(name, nil, 0o644)
		}
	}
}
