package step

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestInUserNamespace runs the tests of RUN and its mounts again as the executor
// of a pod runs: in a user namespace, without rights in the one above, so that
// devices cannot be made and trusted attributes cannot be set.
func TestInUserNamespace(t *testing.T) {
	if os.Getenv("INNER") != "" {
		t.Skip("this is the inner run")
	}
	if testing.Short() {
		t.Skip("long")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestRun|^TestMount")
	cmd.Env = append(os.Environ(), "INNER=1")
	all := []syscall.SysProcIDMap{{Size: 4294967295}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestRunRights") {
		t.Errorf("%v\n%s", err, out)
	}
}
