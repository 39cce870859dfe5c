package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// someone is an ordinary user: a number that no user of the machine has, so
// without a name, groups, subordinate ids or a home of its own.
const someone = 60606

// front stands for kbuild-sandbox; a script that has given up root itself gets
// the program as it is.
const front = `#!/bin/sh
real=%[2]s/kbuild-sandbox
[ "$(id -u)" = 0 ] || exec $real "$@"
setid=$(find "$WORK" "$SIDE" -type f -perm /6000 ! -user %[1]d -printf '%%m %%p\n')
find "$WORK" "$SIDE" ! -user %[1]d -exec chown -h %[1]d:%[1]d {} + # which takes set-id bits away
[ -z "$setid" ] || echo "$setid" | while read -r mode file; do chmod "$mode" "$file"; done
exec setpriv --reuid %[1]d --regid %[1]d --clear-groups $real "$@"
`

// asSomeone makes a directory of the product's binaries in which kbuild-sandbox
// gives up root before it begins. The scripts around it keep root, to look at
// what came out; what lies in their directories is given to the user before
// each call, as the files of a user are his.
func asSomeone(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	openTo(t, dir, 0)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kbuild-sandbox", "kbuild-executor", "runsc"} {
		if err := copyProgram(filepath.Join(bin, name), filepath.Join(real, name)); err != nil {
			t.Fatal(err)
		}
		if name == "kbuild-sandbox" {
			continue
		}
		if err := os.Symlink(filepath.Join("real", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(front, someone, real)
	if err := os.WriteFile(filepath.Join(dir, "kbuild-sandbox"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// programs is the directory with the programs themselves.
func programs(bin string, uid int) string {
	if uid == 0 {
		return bin
	}
	return filepath.Join(bin, "real")
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
