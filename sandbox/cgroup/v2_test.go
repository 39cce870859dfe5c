package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Where this machine has its controllers in v1, these tests run a second time
// under a kernel of their own, Debian's user-mode-linux, with all of them in v2.
func TestUnderV2(t *testing.T) {
	if list := need(t); slices.ContainsFunc(list, func(h hierarchy) bool { return h.v2 }) {
		t.Skip("this machine has v2 itself")
	}
	linux, err := exec.LookPath("linux.uml")
	if err != nil {
		t.Skip("user-mode-linux is not installed: nothing was tried under cgroup v2")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	init := filepath.Join(dir, "init")
	text := fmt.Sprintf(`#!/bin/sh
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /mnt
mount -t cgroup2 cgroup /sys/fs/cgroup
cp %s /mnt/test && mount --bind /mnt /tmp
export PATH=/usr/bin:/bin HOME=/tmp
cd /tmp && ./test -test.v
echo o > /proc/sysrq-trigger
sleep 10
`, self)
	if err := os.WriteFile(init, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, linux, "mem=1024M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
		"init="+init, "con=null", "con0=null,fd:1", "uml_dir="+dir, "quiet")
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	for _, name := range []string{"Group", "OutOfMemory", "OutOfTasks", "RemoveRecorded", "Cannot", "Delegated", "NotDelegated", "Above"} {
		if !strings.Contains(string(out), "--- PASS: Test"+name+" ") {
			t.Errorf("Test%s did not pass under v2 (%v)", name, err)
		}
	}
}
