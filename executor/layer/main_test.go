package layer

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
)

// TestMain runs the tests twice: on Linux, where kernel and tools judge, and
// inside gVisor, where the package works. Fuzzing stays outside.
func TestMain(m *testing.M) {
	if !inside() {
		code := m.Run()
		for _, a := range os.Args {
			if name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); strings.HasPrefix(name, "test.fuzz") && name != "test.fuzzcachedir" && value != "" {
				os.Exit(code)
			}
		}
		if code != 0 || os.Geteuid() != 0 {
			os.Exit(code)
		}
	}
	insandbox.Main(m)
}

func inside() bool {
	b, err := os.ReadFile("/proc/version")
	return err == nil && bytes.Contains(b, []byte("gvisor"))
}
