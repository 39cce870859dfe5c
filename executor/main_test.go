package executor

import (
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/insandbox"
)

func TestMain(m *testing.M) { insandbox.Run(m, insandbox.Config{Programs: []string{"busybox"}}) }
