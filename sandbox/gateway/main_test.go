package gateway

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	switch {
	case IsFirstStage(os.Args):
		fmt.Fprintln(os.Stderr, FirstStage(os.Args))
		os.Exit(125)
	case os.Getenv(launcherEnv) != "":
		os.Exit(launcher(os.Getenv(launcherEnv)))
	}
	os.Exit(m.Run())
}
