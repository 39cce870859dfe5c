package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	switch {
	case IsFirstStage(os.Args):
		fmt.Fprintln(os.Stderr, FirstStage(os.Args))
		os.Exit(125)
	case len(os.Args) == 3 && os.Args[1] == clientArg:
		os.Exit(client(strings.Fields(os.Args[2])))
	case os.Getenv(clientEnv) != "":
		os.Exit(client(strings.Fields(os.Getenv(clientEnv))))
	case os.Getenv(launcherEnv) != "":
		os.Exit(launcher(os.Getenv(launcherEnv)))
	}
	os.Exit(m.Run())
}
