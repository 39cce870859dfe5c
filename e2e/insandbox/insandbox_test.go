package insandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestInside(t *testing.T) {
	b, err := os.ReadFile("/proc/version")
	if err != nil || !strings.Contains(string(b), "gvisor") {
		t.Errorf("/proc/version: %q, %v; want gvisor", b, err)
	}
	if _, err := os.Stat("insandbox_test.go"); err != nil {
		t.Errorf("the package's directory is not the working directory: %v", err)
	}
	if err := os.WriteFile("x", nil, 0o600); err == nil {
		t.Error("the source is writable")
	}
}

func TestWorkspaceTakesWhiteouts(t *testing.T) {
	name := filepath.Join(Workspace, "whiteout")
	if err := unix.Mknod(name, unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lsetxattr(t.TempDir(), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
}
