package rootfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

func TestMain(m *testing.M) { insandbox.Main(m) }

// space returns a workspace in a fresh directory of the disk-backed tmpfs.
func space(t *testing.T) *rootfs.Space {
	t.Helper()
	dir, err := os.MkdirTemp(insandbox.Workspace, "t")
	if err != nil {
		t.Fatal(err)
	}
	return spaceIn(t, dir)
}

func spaceIn(t *testing.T, dir string) *rootfs.Space {
	t.Helper()
	s, err := rootfs.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left := mountsBelow(t, dir); len(left) > 0 {
			t.Errorf("still mounted: %v", left)
		}
		os.RemoveAll(dir)
	})
	return s
}

func mountsBelow(t *testing.T, dir string) (found []string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found
}

// step runs f on the tree's merged directory and commits.
func step(t *testing.T, tree *rootfs.Tree, f func(root string) error) (upper string) {
	t.Helper()
	m, err := tree.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Discard()
	if err := f(m.Root()); err != nil {
		t.Fatal(err)
	}
	upper, err = m.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return upper
}

func write(names ...string) func(string) error {
	return func(root string) error {
		for _, n := range names {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, n)), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(root, n), []byte(n), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// files returns the paths of all files in the tree as it is now.
func files(t *testing.T, tree *rootfs.Tree) []string {
	t.Helper()
	root, release, err := tree.View(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	}()
	return filesIn(t, root)
}

func filesIn(t *testing.T, root string) []string {
	t.Helper()
	found := []string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantFiles(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("files: %q, want %q", got, want)
	}
}

func TestSteps(t *testing.T) {
	tree := space(t).Tree()
	wantFiles(t, files(t, tree))
	first := step(t, tree, write("a", "d/b", "d/c"))
	second := step(t, tree, func(root string) error {
		return errors.Join(os.Remove(root+"/a"), os.Remove(root+"/d/b"), write("d/e")(root))
	})
	wantFiles(t, files(t, tree), "d/c", "d/e")
	wantFiles(t, filesIn(t, first), "a", "d/b", "d/c")
	// What the second step did, and nothing else, is in its upper.
	wantFiles(t, filesIn(t, second), "a", "d/b", "d/e")
	for _, n := range []string{"a", "d/b"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(second, n), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s: mode %o rdev %d, %v; want a whiteout", n, st.Mode, st.Rdev, err)
		}
	}
}

func TestReplacedDirectoryIsOpaque(t *testing.T) {
	s := space(t)
	tree := s.Tree()
	step(t, tree, write("d/old"))
	upper := step(t, tree, func(root string) error {
		return errors.Join(os.RemoveAll(root+"/d"), write("d/new")(root))
	})
	wantFiles(t, files(t, tree), "d/new")
	var b [1]byte
	if n, err := unix.Lgetxattr(filepath.Join(upper, "d"), rootfs.Opaque, b[:]); n != 1 || b[0] != 'y' {
		t.Errorf("%s = %q, %v; want y", rootfs.Opaque, b[:n], err)
	}
}

func TestRenamedDirectory(t *testing.T) {
	tree := space(t).Tree()
	step(t, tree, write("d/sub/f"))
	step(t, tree, func(root string) error { return os.Rename(root+"/d", root+"/e") })
	wantFiles(t, files(t, tree), "e/sub/f")
	step(t, tree, func(root string) error { return os.Rename(root+"/e", root+"/d") })
	wantFiles(t, files(t, tree), "d/sub/f")
}

// TestMarkCannotBeForged: a step that could mark a directory opaque would hide
// what lies below it from the packer's reader but not from the next step.
func TestMarkCannotBeForged(t *testing.T) {
	s := space(t)
	step(t, s.Tree(), func(root string) error {
		if err := unix.Lsetxattr(root, rootfs.Opaque, []byte("y"), 0); err == nil {
			t.Errorf("%s can be set in the merged directory", rootfs.Opaque)
		}
		return nil
	})
}

func TestDiscard(t *testing.T) {
	tree := space(t).Tree()
	step(t, tree, write("a"))
	m, err := tree.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := write("b")(m.Root()); err != nil {
		t.Fatal(err)
	}
	if err := m.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.Upper()); !os.IsNotExist(err) {
		t.Errorf("upper is still there: %v", err)
	}
	if _, err := m.Commit(); err == nil {
		t.Error("commit after discard worked")
	}
	wantFiles(t, files(t, tree), "a")
}

func TestExtraIsForOneMountOnly(t *testing.T) {
	s := space(t)
	tree := s.Tree()
	step(t, tree, write("a"))
	extra, err := s.Mkdir()
	if err != nil {
		t.Fatal(err)
	}
	if err := write("stub", "a")(extra); err != nil {
		t.Fatal(err)
	}
	m, err := tree.Begin(context.Background(), extra)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, filesIn(t, m.Root()), "a", "stub")
	upper, err := m.Commit()
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, filesIn(t, upper))
	wantFiles(t, files(t, tree), "a")
}

func TestForkGoesItsOwnWay(t *testing.T) {
	tree := space(t).Tree()
	step(t, tree, write("a"))
	fork := tree.Fork()
	step(t, tree, write("b"))
	step(t, fork, write("c"))
	wantFiles(t, files(t, tree), "a", "b")
	wantFiles(t, files(t, fork), "a", "c")
}

func TestView(t *testing.T) {
	tree := space(t).Tree()
	step(t, tree, write("a"))
	ctx := context.Background()
	one, releaseOne, err := tree.View(ctx)
	if err != nil {
		t.Fatal(err)
	}
	two, releaseTwo, err := tree.View(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if one != two {
		t.Errorf("two mounts of the same: %s, %s", one, two)
	}
	if err := os.WriteFile(one+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
	step(t, tree, write("b"))
	wantFiles(t, filesIn(t, one), "a") // as it was
	wantFiles(t, files(t, tree), "a", "b")
	for i, release := range []func() error{releaseOne, releaseOne, releaseTwo} {
		if err := release(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(two + "/a"); (err == nil) != (i < 2) {
			t.Errorf("after release %d: %v", i, err)
		}
	}
}

func TestRootAttributes(t *testing.T) {
	tree := space(t).Tree()
	attr := func(root string) string {
		var st unix.Stat_t
		if err := unix.Stat(root, &st); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		n, _ := unix.Getxattr(root, "user.x", b)
		return fmt.Sprintf("%o %d:%d %d.%09d %s", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, b[:max(n, 0)])
	}
	var want string
	step(t, tree, func(root string) error {
		err := errors.Join(os.Chown(root, 7, 8), os.Chmod(root, 0o751|os.ModeSticky), unix.Setxattr(root, "user.x", []byte("v"), 0),
			unix.UtimesNanoAt(unix.AT_FDCWD, root, []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}, 0))
		want = attr(root)
		return err
	})
	step(t, tree, func(root string) error {
		if got := attr(root); got != want {
			t.Errorf("root of the next step: %s, want %s", got, want)
		}
		return nil
	})
}

func TestOpaqueRoot(t *testing.T) {
	s := space(t)
	var dirs []string
	for _, n := range []string{"a", "b", "c"} {
		dir, err := s.Mkdir()
		if err != nil {
			t.Fatal(err)
		}
		if err := write(n)(dir); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if err := unix.Lsetxattr(dirs[1], rootfs.Opaque, []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, files(t, s.Tree(dirs...)), "b", "c")
}

// TestManySteps needs more lowers than one mount can have, for their number and
// for the length of their names.
func TestManySteps(t *testing.T) {
	long := filepath.Join(insandbox.Workspace, strings.Repeat("long", 30))
	for _, c := range []struct {
		dir   string
		steps int
	}{{filepath.Join(insandbox.Workspace, "m"), 450}, {long, 90}} {
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		tree := spaceIn(t, c.dir).Tree()
		for i := range c.steps {
			step(t, tree, func(root string) error {
				if i > 1 {
					if err := os.Remove(fmt.Sprintf("%s/d/%d", root, i-2)); err != nil {
						return err
					}
				}
				return write(fmt.Sprintf("d/%d", i), "same")(root)
			})
		}
		wantFiles(t, files(t, tree), fmt.Sprintf("d/%d", c.steps-2), fmt.Sprintf("d/%d", c.steps-1), "same")
	}
}

func TestWorkspaceName(t *testing.T) {
	for _, dir := range []string{"rel", "/a:b", "/a,b", `/a\b`, "/does/not/exist"} {
		if _, err := rootfs.New(dir); err == nil {
			t.Errorf("%q: no error", dir)
		}
	}
}

func TestStagesAtOnce(t *testing.T) {
	base := space(t).Tree()
	step(t, base, write("base"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			tree := base.Fork()
			for j := range 5 {
				step(t, tree, write(fmt.Sprintf("%d-%d", i, j)))
				_, release, err := base.View(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				if err := release(); err != nil {
					t.Error(err)
				}
			}
			if n := len(files(t, tree)); n != 6 {
				t.Errorf("stage %d: %d files, want 6", i, n)
			}
		})
	}
	wg.Wait()
}

// TestInUserNamespace runs all tests of this file again as the executor of a
// pod runs: in a user namespace, without rights in the one above.
func TestInUserNamespace(t *testing.T) {
	if b, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(b))[0] != "0" || os.Getenv("USERNS") != "" {
		t.Skip("this is the inner run")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=.")
	cmd.Env = append(os.Environ(), "USERNS=1")
	all := []syscall.SysProcIDMap{{Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSteps") {
		t.Errorf("%v\n%s", err, out)
	}
}

func BenchmarkStep(b *testing.B) {
	s, err := rootfs.New(insandbox.Workspace)
	if err != nil {
		b.Fatal(err)
	}
	dir, _ := s.Mkdir()
	tree := s.Tree(dir)
	for range b.N {
		m, err := tree.Begin(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Discard(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLowerNames: the name of a lower is not to bring in another one.
func TestLowerNames(t *testing.T) {
	s := space(t)
	for _, name := range []string{"a:b", "a,b", `a\b`} {
		dir, err := s.Mkdir()
		if err != nil {
			t.Fatal(err)
		}
		lower := filepath.Join(dir, name)
		if err := os.Mkdir(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		tree := s.Tree(lower)
		if m, err := tree.Begin(context.Background()); err == nil {
			t.Errorf("%q: mounted, want an error", name)
			_ = m.Discard()
		}
		if _, release, err := tree.View(context.Background()); err == nil {
			t.Errorf("%q: viewed, want an error", name)
			_ = release()
		}
	}
}

// TestSpaceWithoutLinks: paths of a workspace are opened where no link counts.
func TestSpaceWithoutLinks(t *testing.T) {
	dir, err := os.MkdirTemp(insandbox.Workspace, "t")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", link)); err != nil {
		t.Fatal(err)
	}
	s, err := rootfs.New(link)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Mkdir()
	if err != nil || filepath.Dir(got) != dir+"/real" {
		t.Errorf("%q, %v; want it below %s/real", got, err, dir)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestProtect: also whoever has the file already, by executing it, cannot write.
func TestProtect(t *testing.T) {
	dir, err := os.MkdirTemp(insandbox.Workspace, "t")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "program")
	if err := os.WriteFile(file, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rootfs.Protect(file); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(file, unix.MNT_DETACH)
	fd, err := unix.Open(file, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, path := range []string{file, fmt.Sprintf("/proc/self/fd/%d", fd)} {
		if err := os.WriteFile(path, nil, 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("write %s: %v, want %v", path, err, unix.EROFS)
		}
	}
}
