package step

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const userTree = `
etc/passwd <root:x:0:0:root:/root:/bin/sh\n\n#x\napp:x:1000:1000:app:/home/app:/bin/sh\n\x20dev:x:1001:1001::\nshort:x:7:8\nodd:x:many:1::/odd\nhuge:x:4294967296:1::/\nminus:x:5:-1::/\nlast:x:77:78::/last:/bin/sh>
etc/group <root:x:0:\napp:x:1000:\ndev:x:1001:\nextra:x:2000:app,dev,app\nmore:x:2001:root,app\nodd:x:many:app\n0day:x:9:\n>
`

func TestLookupUser(t *testing.T) {
	root := t.TempDir()
	grow(t, root, userTree)
	empty := t.TempDir()
	tests := []struct {
		root, spec string
		uid, gid   uint32
		groups     []uint32
		home       string
		err        string
	}{
		{root: root, spec: "", groups: []uint32{0, 2001}, home: "/root"},
		{root: root, spec: "app", uid: 1000, gid: 1000, groups: []uint32{1000, 2000, 2001}, home: "/home/app"},
		{root: root, spec: "1000", uid: 1000, gid: 1000, groups: []uint32{1000, 2000, 2001}, home: "/home/app"},
		{root: root, spec: "dev", uid: 1001, gid: 1001, groups: []uint32{1001, 2000}, home: "/"},
		{root: root, spec: "short", uid: 7, gid: 8, groups: []uint32{8}, home: "/"},
		{root: root, spec: "last", uid: 77, gid: 78, groups: []uint32{78}, home: "/last"},
		{root: root, spec: "app:extra", uid: 1000, gid: 2000, groups: []uint32{2000}, home: "/home/app"},
		{root: root, spec: "app:0", uid: 1000, gid: 0, groups: []uint32{0}, home: "/home/app"},
		{root: root, spec: "1000:2000", uid: 1000, gid: 2000, groups: []uint32{2000}, home: "/home/app"},
		{root: root, spec: "4242", uid: 4242, gid: 0, groups: []uint32{0}, home: "/"},
		{root: root, spec: "4242:4343", uid: 4242, gid: 4343, groups: []uint32{4343}, home: "/"},
		{root: root, spec: "root:0day", gid: 9, groups: []uint32{9}, home: "/root"},
		{root: root, spec: ":extra", gid: 2000, groups: []uint32{2000}, home: "/root"},
		{root: empty, spec: "12:34", uid: 12, gid: 34, groups: []uint32{34}, home: "/"},
		{root: empty, spec: "root", groups: []uint32{0}, home: "/"},
		{root: empty, spec: "", groups: []uint32{0}, home: "/"},
		{root: empty, spec: "app", err: "unable to find user app: no matching entries in passwd file"},
		{root: root, spec: "ghost", err: "unable to find user ghost: no matching entries in passwd file"},
		{root: root, spec: "app:ghosts", err: "unable to find group ghosts: no matching entries in group file"},
		{root: root, spec: "app extra", err: "unable to find user app extra"},
		{root: root, spec: "#x", err: "invalid uid"},
		{root: root, spec: "odd", err: `user "odd": invalid uid "many" in passwd file`},
		{root: root, spec: "huge", err: "invalid uid"},
		{root: root, spec: "minus", err: "invalid gid"},
		{root: root, spec: "4294967296", err: "ids must be in range"},
		{root: root, spec: "4294967295", err: "ids must be in range"},
		{root: root, spec: "-1", err: "ids must be in range"},
		{root: root, spec: "1000:99999999999999999999", err: "ids must be in range"},
		{root: root, spec: "0x0", err: "unable to find user 0x0"},
	}
	for _, tt := range tests {
		id, err := lookupUser(tt.root, tt.spec)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.spec, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.spec, err)
			continue
		}
		if id.UID != tt.uid || id.GID != tt.gid || !slices.Equal(id.Groups, tt.groups) || id.Home != tt.home {
			t.Errorf("%q: %+v, want %+v", tt.spec, id, tt)
		}
	}
}

// TestHostileUserFiles: what stands at /etc/passwd is the image's choice.
func TestHostileUserFiles(t *testing.T) {
	outside := t.TempDir()
	grow(t, outside, "passwd <app:x:666:666::/:\\n>\n")
	tests := []struct {
		name, tree, err string
		set             func(passwd string) error
	}{
		{name: "fifo", tree: "etc/passwd |\n", err: "not a regular file"},
		{name: "directory", tree: "etc/passwd/\n", err: "not a regular file"},
		{name: "link out of the image", tree: "etc/passwd -> ../../" + filepath.Base(outside) + "/passwd\n", err: "unable to find user"},
		{name: "absolute link", tree: "etc/passwd -> " + outside + "/passwd\n", err: "unable to find user"},
		{name: "directory linked out of the image", tree: "etc -> " + outside + "\n", err: "unable to find user"},
		{name: "circle", tree: "etc/passwd -> passwd\n", err: "too many levels"},
		{name: "etc is a file", tree: "etc <x>\n", err: "unable to find user"},
		{name: "huge", tree: "etc/passwd <x>\n", err: "exceeds 10485760 bytes", set: func(p string) error { return os.Truncate(p, 8<<30) }},
		{name: "many lines", tree: "etc/passwd <x>\n", err: "exceeds 10485760 bytes", set: func(p string) error {
			return os.WriteFile(p, []byte(strings.Repeat("x\n", maxUserFile/2+1)), 0o644)
		}},
		{name: "device", tree: "etc/\n", err: "not a regular file", set: func(p string) error {
			return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			grow(t, root, tt.tree)
			if tt.set != nil {
				must(t, tt.set(filepath.Join(root, "etc/passwd")))
			}
			start := time.Now()
			id, err := lookupUser(root, "app")
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v, error %v, want %q", id, err, tt.err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	root := t.TempDir()
	grow(t, root, "nix/passwd <app:x:5:6::/nix:>\netc/passwd -> /nix/passwd\n")
	if id, err := lookupUser(root, "app"); err != nil || id.UID != 5 {
		t.Errorf("through a link in the image: %+v, %v", id, err)
	}
}

// FuzzLookupUser: any file gives an answer or an error, soon, and never an id
// that means something else to the kernel.
func FuzzLookupUser(f *testing.F) {
	f.Add("app:x:1:1::/:", "g:x:5:app", "app:g")
	f.Add(":::::", "::::", ":")
	f.Fuzz(func(t *testing.T, passwd, group, spec string) {
		root := t.TempDir()
		must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
		must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644))
		must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte(group), 0o644))
		id, err := lookupUser(root, spec)
		if err != nil {
			return
		}
		for _, n := range append(id.Groups, id.UID, id.GID) {
			if n > maxID {
				t.Errorf("id %d", n)
			}
		}
		if !slices.Contains(id.Groups, id.GID) {
			t.Error(fmt.Sprint("groups without the primary one: ", id))
		}
	})
}
