package step

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
)

// The test program plays three parts: the tests, the RUN child, and, under the
// name auditor, a command inside a stage that looks around.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "auditor" {
		os.Exit(audit(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "run-child" {
		os.Exit(Child(os.Args[2:]))
	}
	insandbox.Run(m, insandbox.Config{Programs: []string{"busybox"}})
}
