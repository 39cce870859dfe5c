package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// baseTree is what the stages of the tables start from.
const baseTree = `
etc/
etc/passwd <root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\ndev:x:1001:1001:dev:/home/dev:/bin/sh\n>
etc/group <root:x:0:\napp:x:1000:\ndev:x:1001:\nextra:x:2000:app,dev\n>
tmp/ 1777
home/
home/app/ 0750 1000:1000
usr/
usr/lib/
`

// grow makes a tree from a description, one thing a line:
//
//	name/ [mode] [uid:gid]             a directory
//	name <contents> [mode] [uid:gid]   a file
//	name -> target [uid:gid]           a link
//	name = other                       a hard link
//	name | [mode] [uid:gid]            a FIFO
func grow(t testing.TB, dir, tree string) {
	t.Helper()
	type meta struct {
		name string
		mode uint32
		own  string
	}
	var last []meta
	for line := range strings.Lines(tree) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		m := meta{name: filepath.Join(dir, f[0]), mode: 0o755, own: "0:0"}
		rest := f[1:]
		must(t, os.MkdirAll(filepath.Dir(m.name), 0o755))
		switch {
		case strings.HasSuffix(f[0], "/"):
			if err := os.Mkdir(m.name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		case len(rest) == 2 && rest[0] == "=":
			must(t, os.Link(filepath.Join(dir, rest[1]), m.name))
			continue
		case len(rest) > 1 && rest[0] == "->":
			must(t, os.Symlink(rest[1], m.name))
			rest = rest[2:]
		case len(rest) > 0 && rest[0] == "|":
			must(t, unix.Mkfifo(m.name, 0o644))
			m.mode, rest = 0o644, rest[1:]
		default:
			text, err := strconv.Unquote(`"` + strings.Trim(rest[0], "<>") + `"`)
			must(t, err)
			must(t, os.WriteFile(m.name, []byte(text), 0o644))
			m.mode, rest = 0o644, rest[1:]
		}
		for _, r := range rest {
			if strings.Contains(r, ":") {
				m.own = r
				continue
			}
			n, err := strconv.ParseUint(r, 8, 32)
			must(t, err)
			m.mode = uint32(n)
		}
		last = append(last, m)
	}
	for _, m := range last {
		var uid, gid int
		fmt.Sscanf(m.own, "%d:%d", &uid, &gid)
		must(t, os.Lchown(m.name, uid, gid))
		if st, err := os.Lstat(m.name); err == nil && st.Mode()&fs.ModeSymlink == 0 {
			must(t, unix.Chmod(m.name, m.mode))
		}
	}
}

// show is the inverse of grow, sorted, with defaults left out. Paths that
// before has in the same form are left out.
func show(t testing.TB, dir string, before map[string]string) (lines []string, all map[string]string) {
	t.Helper()
	all = map[string]string{}
	links := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err == nil {
			all[rel], err = describe(p, rel, links)
		}
		return err
	})
	must(t, err)
	for rel, line := range all {
		if before[rel] != line {
			lines = append(lines, line)
		}
	}
	for rel := range before {
		if _, ok := all[rel]; !ok {
			lines = append(lines, "gone: "+rel)
		}
	}
	slices.Sort(lines)
	return lines, all
}

// describe is one line of show; links are the first names of inodes.
func describe(p, rel string, links map[uint64]string) (line string, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	line, usual := rel, uint32(0o644)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		line, usual = rel+"/", 0o755
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		if err != nil {
			return "", err
		}
		line, usual = rel+" -> "+target, 0o777
	case unix.S_IFIFO:
		line = rel + " |"
	case unix.S_IFREG:
		if first := links[st.Ino]; first != "" {
			return rel + " = " + first, nil
		}
		if st.Nlink > 1 {
			links[st.Ino] = rel
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		q := strconv.Quote(string(b))
		line = rel + " <" + q[1:len(q)-1] + ">"
	default:
		line = fmt.Sprintf("%s ? %o", rel, st.Mode)
	}
	if mode := st.Mode & 0o7777; mode != usual {
		line += fmt.Sprintf(" %04o", mode)
	}
	if st.Uid != 0 || st.Gid != 0 {
		line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
	}
	return line, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
