package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// copyTest is a copy from a context or a stage into a stage.
type copyTest struct {
	name   string
	from   string // tree of the source
	onto   string // added to the stage
	ignore string // ignore file
	stage  bool   // the source is a stage
	op     plan.Copy
	want   string // changed lines, or
	err    string // a fragment of the error
}

func (tt copyTest) run(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give files away")
	}
	src, root := t.TempDir(), t.TempDir()
	grow(t, src, tt.from)
	grow(t, root, baseTree)
	grow(t, root, tt.onto)
	_, before := show(t, root, nil)
	from := Source{Root: src, Stage: tt.stage, Owners: tt.stage}
	if tt.ignore != "" {
		file := filepath.Join(t.TempDir(), "ignore")
		must(t, os.WriteFile(file, []byte(tt.ignore), 0o644))
		c, err := buildcontext.Open(src, file)
		must(t, err)
		from.Excluded = c.Excluded
	}
	early := CheckSources(t.Context(), &tt.op, from)
	err := copyAll(t, root, from, &tt.op)
	if early != nil && (err == nil || err.Error() != early.Error()) {
		t.Errorf("said before: %v; then: %v", early, err)
	}
	if tt.err != "" {
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Fatalf("error %v, want %q", err, tt.err)
		}
		if strings.Contains(err.Error(), src) || strings.Contains(err.Error(), root) {
			t.Errorf("the error shows where the trees lie: %v", err)
		}
		return
	}
	must(t, err)
	got, _ := show(t, root, before)
	var want []string
	for line := range strings.Lines(tt.want) {
		if line = strings.TrimSpace(line); line != "" {
			want = append(want, line)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func copyAll(t testing.TB, root string, from Source, op *plan.Copy) error {
	t.Helper()
	open := openFiles(t)
	c, err := newCopier(root, root, from, op, false)
	if err == nil {
		err = errors.Join(c.all(t.Context(), op, Env{}), c.close())
	}
	if now := openFiles(t); now != open {
		t.Errorf("%d files were open, %d still are", open, now)
	}
	return err
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func cp(dest string, paths ...string) plan.Copy { return plan.Copy{Paths: paths, Dest: dest} }

func with(op plan.Copy, set func(*plan.Copy)) plan.Copy {
	set(&op)
	return op
}

func TestCopyDestination(t *testing.T) {
	const from = "a.txt <a>\nb.txt <b>\nd/c <c>\nd/s/e <e>\n"
	tests := []copyTest{
		{name: "file to file", op: cp("/x/y/z", "a.txt"), want: "x/\nx/y/\nx/y/z <a>"},
		{name: "file to directory by slash", op: cp("/x/y/", "a.txt"), want: "x/\nx/y/\nx/y/a.txt <a>"},
		{name: "file to directory by dot", op: cp("/x/y/.", "a.txt"), want: "x/\nx/y/\nx/y/a.txt <a>"},
		{name: "file to directory that is there", op: cp("/tmp", "a.txt"), want: "tmp/a.txt <a>"},
		{name: "to the root", op: cp("/", "a.txt", "d"), want: "a.txt <a>\nc <c>\ns/\ns/e <e>"},
		{name: "contents of a directory", op: cp("/x", "d"), want: "x/\nx/c <c>\nx/s/\nx/s/e <e>"},
		{name: "contents, with slashes", op: cp("/x/", "d/"), want: "x/\nx/c <c>\nx/s/\nx/s/e <e>"},
		{name: "several", op: cp("/x/", "a.txt", "d", "b.txt"), want: "x/\nx/a.txt <a>\nx/b.txt <b>\nx/c <c>\nx/s/\nx/s/e <e>"},
		{name: "several to one name", op: cp("/x", "a.txt", "b.txt"), want: "x <b>"},
		{name: "link to a directory", onto: "real/\nlink -> /real\n", op: cp("/link/", "a.txt", "d"),
			want: "real/a.txt <a>\nreal/c <c>\nreal/s/\nreal/s/e <e>"},
		{name: "link to a directory, no slash", onto: "real/\nlink -> real\n", op: cp("/link", "d"), want: "real/c <c>\nreal/s/\nreal/s/e <e>"},
		{name: "link to a file", onto: "t <old> 0600 7:8\nlink -> /t\n", op: cp("/link", "a.txt"), want: "t <a>"},
		{name: "link in a directory is replaced", onto: "t <old>\ntmp/a.txt -> /t\n", op: cp("/tmp/", "a.txt"), want: "tmp/a.txt <a>"},
		{name: "dangling link", onto: "link -> /nowhere/file\n", op: cp("/link", "a.txt"), want: "nowhere/\nnowhere/file <a>"},
		{name: "link in the middle", onto: "data/v1/\ncur -> /data/v1\n", op: cp("/cur/sub/a", "a.txt"), want: "data/v1/sub/\ndata/v1/sub/a <a>"},
		{name: "links upwards stay inside", onto: "up -> ../../../../..\nupper -> /../../x\n", op: cp("/up/upper/a", "a.txt"), want: "x/\nx/a <a>"},
		{name: "links in a circle", onto: "p -> q\nq -> p\n", op: cp("/p/a", "a.txt"), err: "too many levels"},
		{name: "new owner and mode of what is replaced", onto: "f <old> 4711 5:6\n", op: cp("/f", "a.txt"), want: "f <a>"},
		{name: "a hard link is replaced alone", onto: "f <old>\ng = f\n", op: cp("/f", "a.txt"), want: "f <a>\ng <old>"},
		{name: "fifo is replaced", onto: "f |\n", op: cp("/f", "a.txt"), want: "f <a>"},
		{name: "merge keeps the destination, not what is in it", onto: "x/ 0700 5:5\nx/keep <k>\nx/s/ 0700 5:5\nx/s/old <o>\n",
			op: cp("/x", "d"), want: "x/c <c>\nx/s/\nx/s/e <e>"},
		{name: "file over file", onto: "x/c <old> 0600 1:1\n", op: cp("/x", "d"), want: "x/c <c>\nx/s/\nx/s/e <e>"},
		{name: "directory over file", op: cp("/etc/passwd", "d"), err: "cannot copy to non-directory: /etc/passwd"},
		{name: "subdirectory over file", onto: "x/s <file>\n", op: cp("/x", "d"), err: "cannot copy to non-directory: /x/s"},
		{name: "subdirectory over link", onto: "real/\nx/s -> /real\n", op: cp("/x", "d"), err: "cannot copy to non-directory: /x/s"},
		{name: "file over directory", onto: "x/c/\n", op: cp("/x", "d"), err: "cannot replace to directory /x/c with file"},
		{name: "below a file", op: cp("/etc/passwd/x", "a.txt"), err: "mkdir /etc/passwd: not a directory"},
		{name: "far below a file", op: cp("/etc/passwd/x/y", "a.txt"), err: "not a directory"},
		{name: "below a file, by slash", op: cp("/etc/passwd/", "a.txt"), err: "mkdir /etc/passwd: not a directory"},
		{name: "set-gid parent", onto: "g/ 2775 0:7\n", op: cp("/g/p/", "a.txt", "d"),
			want: "g/p/ 2755 0:7\ng/p/a.txt <a>\ng/p/c <c>\ng/p/s/\ng/p/s/e <e>"},
		{name: "set-gid directory", onto: "g/ 2775 0:7\n", op: cp("/g/", "a.txt", "d"), want: "g/a.txt <a>\ng/c <c>\ng/s/\ng/s/e <e>"},
	}
	for _, tt := range tests {
		tt.from = from
		t.Run(tt.name, tt.run)
	}
}

func TestCopySource(t *testing.T) {
	const from = `
a.txt <a>
b.txt <b>
a[0].txt <0>
1.md <1>
22.md <2>
l -> a.txt
dl -> real
out -> ../../../a.txt
gone -> nowhere
loop -> loop
real/in <in>
real/up -> ../../out
real/abs -> /etc/passwd
pkg-a/a <a>
pkg-b/b <b>
pkg-b/sub/c <c>
deep/x/y/z <z>
empty/
`
	tests := []copyTest{
		{name: "leading slash", op: cp("/x", "/a.txt"), want: "x <a>"},
		{name: "dots are clamped", op: cp("/x", "../../real/../b.txt"), want: "x <b>"},
		{name: "slash after a file", op: cp("/x", "a.txt/"), want: "x <a>"},
		{name: "link named", op: cp("/x/", "l"), want: "x/\nx/l <a>"},
		{name: "link to a directory named", op: cp("/x", "dl"), want: "x/\nx/abs -> /etc/passwd\nx/in <in>\nx/up -> ../../out"},
		{name: "link on the way", op: cp("/x", "dl/in"), want: "x <in>"},
		{name: "link out of the source", op: cp("/x", "out"), want: "x <a>"},
		{name: "dangling link", op: cp("/x", "gone"), err: `"/gone": not found`},
		{name: "circle", op: cp("/x", "loop"), err: "too many levels"},
		{name: "missing", op: cp("/x", "nope"), err: `"/nope": not found`},
		{name: "missing above", op: cp("/x", "../nope/x"), err: `"/nope/x": not found`},
		{name: "below a file", op: cp("/x", "a.txt/x"), err: `"/a.txt/x": not found`},
		{name: "star", op: cp("/x/", "*.txt"), want: "x/\nx/a.txt <a>\nx/a[0].txt <0>\nx/b.txt <b>"},
		{name: "mark", op: cp("/x/", "?.md"), want: "x/\nx/1.md <1>"},
		{name: "class", op: cp("/x/", "[b-z].txt"), want: "x/\nx/b.txt <b>"},
		{name: "escape by class", op: cp("/x/", "a[[]0].txt"), want: "x/\nx/a[0].txt <0>"},
		{name: "one match renamed", op: cp("/x", "22.*"), want: "x <2>"},
		{name: "directories are flattened", op: cp("/x", "pkg-*"), want: "x/\nx/a <a>\nx/b <b>\nx/sub/\nx/sub/c <c>"},
		{name: "in the middle", op: cp("/x/", "pkg-?/b", "*/x/y"), want: "x/\nx/b <b>\nx/z <z>"},
		{name: "two stars are one", op: cp("/x/", "**/[bi]*"), want: "x/\nx/b <b>\nx/in <in>"},
		{name: "a link matched is followed", op: cp("/x/", "[l]"), want: "x/\nx/l <a>"},
		{name: "a link on the way of a match is not", op: cp("/x/", "d[l]/in")},
		{name: "a link before the wildcard is", op: cp("/x/", "dl/i*"), want: "x/\nx/in <in>"},
		{name: "a dangling link matched", op: cp("/x/", "go*"), err: `"/gone": not found`},
		{name: "no match", op: cp("/x/", "*.nope")},
		{name: "no match without directory", op: cp("/x/", "nope/*"), err: `"/nope": not found`},
		{name: "bad pattern", op: cp("/x/", "[a"), err: "syntax error in pattern"},
		{name: "empty directory", op: cp("/x/", "empty"), want: "x/"},
		{name: "empty name is the root", from: "f <f>\n", op: cp("/x/", ""), want: "x/\nx/f <f>"},
		{name: "no heed to a stage's links", stage: true, op: cp("/x", "dl"),
			want: "x/\nx/abs -> /etc/passwd\nx/in <in>\nx/up -> ../../out"},
	}
	for _, tt := range tests {
		if tt.from == "" {
			tt.from = from
		}
		t.Run(tt.name, tt.run)
	}
}

func TestCopyOwnerAndMode(t *testing.T) {
	const from = `
f <f> 0640 5:6
exe <x> 0700
suid <s> 4755 5:6
d/ 0711 5:6
d/f <f> 0600 7:7
d/x <x> 0711
d/sub/ 1777
d/l -> f 5:5
d/p | 0620 3:4
`
	chmod := func(mode string) func(*plan.Copy) { return func(op *plan.Copy) { op.Chmod = mode } }
	chown := func(who string) func(*plan.Copy) { return func(op *plan.Copy) { op.Chown = who } }
	tests := []copyTest{
		{name: "root gets a context", op: cp("/x/", "f", "suid"), want: "x/\nx/f <f> 0640\nx/suid <s> 4755"},
		{name: "a context's directory", op: cp("/x", "d"),
			want: "x/\nx/f <f> 0600\nx/x <x> 0711\nx/sub/ 1777\nx/l -> f\nx/p | 0620"},
		{name: "owners of a stage", stage: true, op: cp("/x/", "f", "suid"), want: "x/\nx/f <f> 0640 5:6\nx/suid <s> 4755 5:6"},
		{name: "a stage's directory", stage: true, op: cp("/x", "d"),
			want: "x/\nx/f <f> 0600 7:7\nx/x <x> 0711\nx/sub/ 1777\nx/l -> f 5:5\nx/p | 0620 3:4"},
		{name: "chown by name", stage: true, op: with(cp("/x/", "suid", "d"), chown("app")),
			want: "x/ 1000:1000\nx/suid <s> 4755 1000:1000\nx/f <f> 0600 1000:1000\nx/x <x> 0711 1000:1000\nx/sub/ 1777 1000:1000\nx/l -> f 1000:1000\nx/p | 0620 1000:1000"},
		{name: "user and group", op: with(cp("/p/q/f", "f"), chown("dev:extra")),
			want: "p/ 1001:2000\np/q/ 1001:2000\np/q/f <f> 0640 1001:2000"},
		{name: "numbers", op: with(cp("/f", "f"), chown("12:34")), want: "f <f> 0640 12:34"},
		{name: "a number alone", op: with(cp("/f", "f"), chown("1001")), want: "f <f> 0640 1001:1001"},
		{name: "name and number", op: with(cp("/f", "f"), chown("app:99")), want: "f <f> 0640 1000:99"},
		{name: "number and name", op: with(cp("/f", "f"), chown("5:extra")), want: "f <f> 0640 5:2000"},
		{name: "nobody knows", op: with(cp("/f", "f"), chown("ghost")), want: "f <f> 0640"},
		{name: "too large", op: with(cp("/f", "f"), chown("4294967296")), err: "ids must be in range"},
		{name: "negative", op: with(cp("/f", "f"), chown("0:-1")), err: "ids must be in range"},
		{name: "octal", op: with(cp("/p/x/", "f", "d"), chmod("750")),
			want: "p/ 0750\np/x/ 0750\np/x/f <f> 0750\np/x/x <x> 0750\np/x/sub/ 0750\np/x/l -> f\np/x/p | 0750"},
		{name: "octal and what is there", op: with(cp("/home/app", "d"), chmod("0600")),
			want: "home/app/f <f> 0600\nhome/app/x <x> 0600\nhome/app/sub/ 0600\nhome/app/l -> f\nhome/app/p | 0600"},
		{name: "set-id bits", op: with(cp("/p/f", "f"), chmod("6755")), want: "p/\np/f <f> 6755"},
		{name: "set-id bits and owner", op: with(cp("/f", "f"), func(o *plan.Copy) { o.Chmod, o.Chown = "4711", "app" }), want: "f <f> 4711 1000:1000"},
		{name: "symbolic", op: with(cp("/x", "d"), chmod("u=rwX,go=rX")),
			want: "x/\nx/f <f>\nx/x <x> 0755\nx/sub/ 1755\nx/l -> f\nx/p |"},
		{name: "symbolic and parents", op: with(cp("/p/f", "f"), chmod("a+x")), want: "p/\np/f <f> 0751"},
		{name: "no mode", op: with(cp("/f", "f"), chmod("9z9")), err: "invalid chmod parameter: '9z9'. it should be octal string and between 0 and 07777"},
		{name: "no mode either", op: with(cp("/f", "f"), chmod("u~x")), err: "invalid chmod parameter"},
	}
	for _, tt := range tests {
		tt.from = from
		t.Run(tt.name, tt.run)
	}
}

func TestCopyFiltered(t *testing.T) {
	const from = `
a.txt <a>
b.md <b>
l -> a.txt
secret <s>
sub/skip <s>
sub/keep <k>
src/deep/x.md <x>
src/deep/y.txt <y>
src/z.md <z>
vendor/a <a>
vendor/keep/b <b>
vendor/none/c <c>
`
	exclude := func(p ...string) func(*plan.Copy) { return func(op *plan.Copy) { op.Exclude = p } }
	parents := func(op *plan.Copy) { op.Parents = true }
	tests := []copyTest{
		{name: "exclude", op: with(cp("/x/", "src", "sub"), exclude("*.md", "skip")),
			want: "x/\nx/deep/\nx/deep/x.md <x>\nx/deep/y.txt <y>\nx/keep <k>"},
		{name: "exclude at any depth", op: with(cp("/x/", "src"), exclude("**/*.md")), want: "x/\nx/deep/\nx/deep/y.txt <y>"},
		{name: "exclude a directory", op: with(cp("/x/", "src"), exclude("deep")), want: "x/\nx/z.md <z>"},
		{name: "exclude but", op: with(cp("/x/", "src"), exclude("deep", "!deep/x*")), want: "x/\nx/deep/\nx/deep/x.md <x>\nx/z.md <z>"},
		{name: "exclude does not reach named files", op: with(cp("/x/", "*.md"), exclude("b*")), want: "x/\nx/b.md <b>"},
		{name: "bad exclude", op: with(cp("/x/", "src"), exclude("[a")), err: "invalid --exclude"},
		{name: "parents", op: with(cp("/x/", "src/deep/x.md", "sub"), parents),
			want: "x/\nx/src/\nx/src/deep/\nx/src/deep/x.md <x>\nx/sub/\nx/sub/keep <k>\nx/sub/skip <s>"},
		{name: "parents with pattern", op: with(cp("/x/", "**/*.md"), parents),
			want: "x/\nx/b.md <b>\nx/src/\nx/src/deep/\nx/src/deep/x.md <x>\nx/src/z.md <z>"},
		{name: "parents with pivot", op: with(cp("/x/", "./src/./deep/*.md"), parents), want: "x/\nx/deep/\nx/deep/x.md <x>"},
		{name: "parents with pivot of several", op: with(cp("/x/", "s*/./*e*"), parents),
			want: "x/\nx/deep/\nx/deep/x.md <x>\nx/deep/y.txt <y>\nx/keep <k>\nx/secret <s>"},
		{name: "parents of all", op: with(cp("/x/", "./vendor/./"), parents), err: `"/vendor": not found`},
		{name: "parents, nothing there", op: with(cp("/x/", "src/nope"), parents), err: `"/src/nope": not found`},
		{name: "parents, no match", op: with(cp("/x/", "src/*.nope"), parents), want: "x/"},
		{name: "parents that are there", onto: "x/src/ 0700 5:5\n", op: with(cp("/x/", "src/z.md"), parents),
			want: "x/src/ 5:5\nx/src/z.md <z>"},
		{name: "parents keep a link", op: with(cp("/x/", "l"), parents), want: "x/\nx/l -> a.txt"},
		{name: "parents and exclude", op: with(cp("/x/", "src"), func(o *plan.Copy) { o.Parents, o.Exclude = true, []string{"**/*.md"} }),
			want: "x/\nx/src/\nx/src/deep/\nx/src/deep/y.txt <y>"},
		{name: "ignored source", ignore: "secret", op: cp("/x", "secret"), err: `"/secret": not found`},
		{name: "ignored target of a link", ignore: "a.txt", op: cp("/x", "l"), err: `"/l": not found`},
		{name: "ignored link", ignore: "l", op: cp("/x", "l"), err: `"/l": not found`},
		{name: "ignored is no match", ignore: "secret\nsub\nvendor\n!vendor/keep/b", op: cp("/x/", "s*", "v*"),
			want: "x/\nx/deep/\nx/deep/x.md <x>\nx/deep/y.txt <y>\nx/keep/\nx/keep/b <b>\nx/z.md <z>"},
		{name: "ignored directory", ignore: "vendor", op: cp("/x", "vendor"), err: `"/vendor": not found`},
		{name: "ignored directory with something left", ignore: "vendor\n!vendor/keep", op: cp("/x", "vendor"), want: "x/\nx/keep/\nx/keep/b <b>"},
		{name: "ignored directory with nothing left", ignore: "vendor\n!vendor/nope", op: cp("/x", "vendor"), err: `"/vendor": not found`},
		{name: "below an ignored directory", ignore: "vendor\n!vendor/keep", op: cp("/x", "vendor/keep/b"), want: "x <b>"},
		{name: "ignored below", ignore: "**\n!src/*.md\n!*.txt", op: cp("/x", "."), want: "x/\nx/a.txt <a>\nx/src/\nx/src/z.md <z>"},
		{name: "links by their own name", ignore: "*\n!l", op: cp("/x", "."), want: "x/\nx/l -> a.txt"},
		{name: "ignored and parents", ignore: "vendor\n!vendor/keep", op: with(cp("/x", "vendor/*/*"), parents),
			want: "x/\nx/vendor/\nx/vendor/keep/\nx/vendor/keep/b <b>"},
	}
	for _, tt := range tests {
		tt.from = from
		t.Run(tt.name, tt.run)
	}
}

func TestCopyLinks(t *testing.T) {
	tests := []copyTest{
		{name: "hard links in a directory", from: "d/a <x> 0600 1:2\nd/b = d/a\nd/s/c = d/a\nd/e <x>\n", op: cp("/x", "d"),
			want: "x/\nx/a <x> 0600\nx/b = x/a\nx/e <x>\nx/s/\nx/s/c = x/a"},
		{name: "hard links of a stage", stage: true, from: "d/a <x> 0600 1:2\nd/b = d/a\n", op: cp("/x", "d"),
			want: "x/\nx/a <x> 0600 1:2\nx/b = x/a"},
		{name: "over what was linked", from: "d/a <x>\nd/b = d/a\n", onto: "x/b <old>\nx/c = x/b\n", op: cp("/x", "d"),
			want: "x/a <x>\nx/b = x/a\nx/c <old>"},
		{name: "sources apart", from: "a <x>\nb = a\n", op: cp("/x/", "a", "b"), want: "x/\nx/a <x>\nx/b <x>"},
		{name: "a link into its own tree", from: "d/a <x>\n", onto: "x/a -> a\n", op: cp("/x", "d"), want: "x/a <x>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, tt.run)
	}
}

func TestCopyDocuments(t *testing.T) {
	file := func(name, text string) plan.File { return plan.File{Name: name, Data: []byte(text), Mode: 0o644} }
	tests := []copyTest{
		{name: "one", op: plan.Copy{Files: []plan.File{file("EOF", "hello\n")}, Dest: "/x/greeting"}, want: `x/
			x/greeting <hello\n>`},
		{name: "two", op: plan.Copy{Files: []plan.File{file("a", "1"), file("b", "")}, Dest: "/x/"}, want: "x/\nx/a <1>\nx/b <>"},
		{name: "owner and mode", op: plan.Copy{Files: []plan.File{file("a", "1")}, Dest: "/usr/lib/t", Chown: "app:extra", Chmod: "0750"},
			want: "usr/lib/t <1> 0750 1000:2000"},
		{name: "beside a file", from: "f <f>\n", op: plan.Copy{Paths: []string{"f"}, Files: []plan.File{file("a", "1")}, Dest: "/x/"},
			want: "x/\nx/a <1>\nx/f <f>"},
		{name: "over a link", onto: "t <old>\nl -> t\n", op: plan.Copy{Files: []plan.File{file("a", "1")}, Dest: "/l"}, want: "t <1>"},
		{name: "no name for a file", op: plan.Copy{Files: []plan.File{file("../a", "1")}, Dest: "/x/"}, err: "not a file name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, tt.run)
	}
}

// TestCopyTimes: modification times are kept to the nanosecond, those of
// directories too, also where the destination was there.
func TestCopyTimes(t *testing.T) {
	src, root := t.TempDir(), t.TempDir()
	grow(t, src, "d/f <f>\nd/s/g <g>\nd/l -> f\n")
	grow(t, root, "there/\n")
	times := map[string]unix.Timespec{
		"d/f": {Sec: 1234567890, Nsec: 123456789}, "d/l": {Sec: 1, Nsec: 1}, "d/s/g": {Sec: 1 << 33, Nsec: 999999999},
		"d/s": {Sec: 5, Nsec: 6}, "d": {Sec: 7, Nsec: 8},
	}
	for name, ts := range times {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(src, name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	for _, dest := range []string{"/new", "/there"} {
		op := cp(dest, "d")
		must(t, copyAll(t, root, Source{Root: src}, &op))
		for name, want := range times {
			var st unix.Stat_t
			must(t, unix.Lstat(path.Join(root, dest, strings.TrimPrefix(name, "d")), &st))
			if st.Mtim != want {
				t.Errorf("%s%s: %v, want %v", dest, name[1:], st.Mtim, want)
			}
		}
	}
}

// TestCopyData: small, large, sparse and empty files, and buffers' edges.
func TestCopyData(t *testing.T) {
	src, root := t.TempDir(), t.TempDir()
	pattern := make([]byte, 3<<20+17)
	for i := range pattern {
		pattern[i] = byte(i*7 + i>>11)
	}
	for _, size := range []int{0, 1, hole - 1, hole, oneCall + 1, copyBuffer - 1, copyBuffer, copyBuffer + 1, len(pattern)} {
		must(t, os.WriteFile(filepath.Join(src, fmt.Sprint(size)), pattern[:size], 0o644))
	}
	sparse := filepath.Join(src, "sparse")
	f, err := os.Create(sparse)
	must(t, err)
	for _, at := range []int64{5, 1<<20 + 3, 10 << 20} {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Truncate(64<<20+1))
	must(t, f.Close())
	op := cp("/x/", ".")
	must(t, copyAll(t, root, Source{Root: src}, &op))
	list, err := os.ReadDir(src)
	must(t, err)
	for _, e := range list {
		want, err := os.ReadFile(filepath.Join(src, e.Name()))
		must(t, err)
		got, err := os.ReadFile(filepath.Join(root, "x", e.Name()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes differ from %d, %v", e.Name(), len(got), len(want), err)
		}
	}
	var from, to unix.Stat_t
	must(t, unix.Stat(sparse, &from))
	must(t, unix.Stat(filepath.Join(root, "x/sparse"), &to))
	// gVisor's tmpfs keeps holes, but does not tell of them.
	if from.Blocks*512 < from.Size && to.Blocks*512 > 8<<20 {
		t.Errorf("the sparse file takes %d bytes", to.Blocks*512)
	}
	w := &worker{}
	for _, e := range list {
		in, err := os.Open(filepath.Join(src, e.Name()))
		must(t, err)
		out, err := os.Create(filepath.Join(root, e.Name()))
		must(t, err)
		st, err := in.Stat()
		must(t, err)
		must(t, w.readWrite(int(out.Fd()), int(in.Fd()), st.Size(), false))
		want, _ := os.ReadFile(filepath.Join(src, e.Name()))
		if got, err := os.ReadFile(filepath.Join(root, e.Name())); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s by reading: %d bytes differ from %d, %v", e.Name(), len(got), len(want), err)
		}
		in.Close()
		out.Close()
	}
}

// TestCopyCanceled: a copy that is called off ends with nothing left open.
func TestCopyCanceled(t *testing.T) {
	src, root := t.TempDir(), t.TempDir()
	smallFiles(t, src, 300)
	open := openFiles(t)
	c, err := newCopier(root, root, Source{Root: src}, &plan.Copy{Paths: []string{"."}, Dest: "/x"}, false)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	op := cp("/x", ".")
	if err := c.all(ctx, &op, Env{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	must(t, c.close())
	if now := openFiles(t); now != open {
		t.Errorf("%d files were open, %d still are", open, now)
	}
}
