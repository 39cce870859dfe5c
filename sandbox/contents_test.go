package sandbox

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/take"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/hashes"
)

// lending is what answers about a context.
func lending(t *testing.T, dir string) *contents {
	t.Helper()
	cache := t.TempDir()
	k, err := openContents(Config{
		Context: dir, Sink: discard{}, Caches: Caches{Dir: cache}, Request: request.Build{StepCache: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}

// asks has a sandbox ask for what a copy takes of the context.
func asks(t *testing.T, k *contents, of request.Contents) []byte {
	t.Helper()
	b, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	return k.answer(t.Context(), guestContext, b)
}

func everything() request.Contents {
	return request.Contents{Selection: request.Selection{Paths: []string{"."}}}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestContents: the launcher says what the sandbox would find, the first time and when
// it remembers, and follows what changes.
func TestContents(t *testing.T) {
	dir := t.TempDir()
	do(t, os.Mkdir(filepath.Join(dir, "d"), 0o755), os.WriteFile(filepath.Join(dir, "d/f"), []byte("1"), 0o644),
		os.Symlink("/etc/passwd", filepath.Join(dir, "out")), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	long := time.Now().Add(-time.Hour)
	k := lending(t, dir)
	for _, content := range []string{"1", "2"} {
		do(t, os.WriteFile(filepath.Join(dir, "d/f"), []byte(content), 0o644), os.Chtimes(filepath.Join(dir, "d/f"), long, long))
		want, err := take.Digest(t.Context(), take.Source{Root: dir}, everything().Selection, take.Care{})
		do(t, err)
		for range 2 {
			if got := asks(t, k, everything()); !slices.Equal(got, want[:]) {
				t.Errorf("with %s: %x, want %x", content, got, want)
			}
		}
	}
	hidden := everything()
	hidden.Ignore = []string{"d"}
	if slices.Equal(asks(t, k, hidden), asks(t, k, everything())) {
		t.Error("the ignore file does not count")
	}
}

// TestContentsUnknown: where files cannot be had, or are too much, the launcher does not
// know, and has nothing open afterwards.
func TestContentsUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		fill func(dir string) error
		of   request.Contents
	}{
		"what a link leads to outside": {func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "l")) },
			request.Contents{Selection: request.Selection{Paths: []string{"l"}}}},
		"a path that leads outside": {func(dir string) error { return nil },
			request.Contents{Selection: request.Selection{Paths: []string{"../../../../../../../etc/passwd"}}}},
		"too deep": {func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", contentsDeepest+2)), 0o755)
		}, everything()},
		"a path too deep": {func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", contentsDeepest+2)), 0o755)
		}, request.Contents{Selection: request.Selection{Paths: []string{strings.Repeat("d/", contentsDeepest+2)}}}},
		"too many patterns": {func(string) error { return nil },
			request.Contents{Selection: everything().Selection, Ignore: slices.Repeat([]string{"x"}, contentsPatterns+1)}},
		"a pattern too long": {func(string) error { return nil },
			request.Contents{Selection: everything().Selection, Ignore: []string{strings.Repeat("*", contentsPattern+1)}}},
		"no pattern": {func(string) error { return nil },
			request.Contents{Selection: everything().Selection, Ignore: []string{"["}}},
		"links in a circle": {func(dir string) error { return os.Symlink("l", filepath.Join(dir, "l")) },
			request.Contents{Selection: request.Selection{Paths: []string{"l"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			do(t, tt.fill(dir))
			k := lending(t, dir)
			before, err := os.ReadDir("/proc/self/fd")
			do(t, err)
			if sum := asks(t, k, tt.of); sum != nil {
				t.Errorf("it says %x", sum)
			}
			after, err := os.ReadDir("/proc/self/fd")
			do(t, err)
			if len(after) > len(before) {
				t.Errorf("%d files were open, %d still are", len(before), len(after))
			}
		})
	}
}

// TestContentsMount: gVisor shows no mount below a context, and the launcher looks into
// none.
func TestContentsMount(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mount", "below/mount"} {
		at := filepath.Join(dir, name)
		do(t, os.MkdirAll(at, 0o755))
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
			t.Skip("needs root to mount: ", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
		for _, p := range []string{name, filepath.Dir(name)} {
			if sum := asks(t, lending(t, dir), request.Contents{Selection: request.Selection{Paths: []string{p}}}); sum != nil {
				t.Errorf("with a mount at %s, of %s: %x", name, p, sum)
			}
		}
	}
}

// What a build has only told about, the next one finds hashed.
func TestContentsLearn(t *testing.T) {
	dir, err := filepath.Abs("testdata") // files that nobody has just written
	do(t, err)
	if !hashes.Trusted(dir) {
		t.Skip("a file system whose times do not tell that a file has changed")
	}
	name := filepath.Join(dir, "guest/main.go")
	knows := func(k *contents) bool {
		var st unix.Stat_t
		do(t, unix.Lstat(name, &st))
		_, ok := k.remembered(dir).Known(&st)
		return ok
	}
	k := lending(t, dir)
	learn := everything()
	if learn.Learn = true; asks(t, k, learn) != nil {
		t.Error("there is an answer")
	}
	for end := time.Now().Add(10 * time.Second); !knows(k); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not learn")
		}
	}
	k.close()
	if next := (&contents{dir: k.dir, hashes: map[string]*hashes.Context{}}); !knows(next) {
		t.Error("the next build does not know")
	}
}

// Whoever tells more than can be learned is not waited for.
func TestContentsLearnTooMuch(t *testing.T) {
	k := lending(t, t.TempDir())
	k.stop()
	learn := everything()
	learn.Learn = true
	for range contentsLessons + 2 {
		asks(t, k, learn)
	}
	if n := len(k.lessons); n != contentsLessons {
		t.Errorf("%d lessons wait", n)
	}
}

// TestContentsBounds: neither memory nor time of the launcher's is the sandbox's to use.
func TestContentsBounds(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		do(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644))
	}
	k := lending(t, dir)
	k.most = 10_000
	if sum := asks(t, k, everything()); sum == nil {
		t.Error("three files are too much")
	}
	much := everything()
	much.Paths = slices.Repeat(much.Paths, 10)
	if sum := asks(t, k, much); sum != nil {
		t.Errorf("of the same files, over and over: %x", sum)
	}
	k = lending(t, dir)
	k.left = 0
	if sum := asks(t, k, everything()); sum != nil {
		t.Errorf("without any time left: %x", sum)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if sum := lending(t, dir).answer(ctx, guestContext, []byte(`{"paths":["."]}`)); sum != nil {
		t.Errorf("of a build that has ended: %x", sum)
	}
}

// TestAsksForContents: a sandbox hears of the contexts that it sees, and of nothing else.
func TestAsksForContents(t *testing.T) {
	dir, other, layout := t.TempDir(), t.TempDir(), t.TempDir()
	c := Config{
		Context: dir, Contexts: []string{other, layout, ""}, Sink: discard{}, Caches: Caches{Dir: t.TempDir()},
		Request: request.Build{StepCache: true, Contexts: []request.NamedContext{{Name: "o"}, {Name: "l", Layout: "/contexts/1"}, {Name: "u"}}},
	}
	k, err := openContents(c)
	do(t, err)
	defer k.close()
	for _, tt := range []struct {
		role request.Role
		at   string
		ok   bool
	}{
		{request.RoleFetch, guestContext, true},
		{request.RoleBuild, guestContext, true},
		{request.RoleFetch, guestNamed(0), true},
		{request.RolePush, guestContext, false},
		{request.RoleFetch, guestNamed(1), false},
		{request.RoleFetch, guestNamed(2), false},
		{request.RoleFetch, "", false},
		{request.RoleFetch, dir, false},
		{request.RoleFetch, "/", false},
		{request.RoleFetch, guestContext + "/..", false},
	} {
		s := &session{conversation: conversation{part: part{role: tt.role}, in: &intake{contents: k}}, c: c}
		err := s.checkAsk(request.Ask{Scope: request.Digest, Name: tt.at, Data: []byte("{}")})
		if (err == nil) != tt.ok {
			t.Errorf("%s asks for %q: %v", tt.role, tt.at, err)
		}
		s.in.contents = nil
		if err := s.checkAsk(request.Ask{Scope: request.Digest, Name: tt.at}); err == nil {
			t.Errorf("%s asks for %q without a layer cache", tt.role, tt.at)
		}
	}
}
