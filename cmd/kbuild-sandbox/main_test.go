package main

import (
	"errors"
	"flag"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestMain lets the scripts run this very program as "kbuild-sandbox".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kbuild-sandbox": main})
}

// TestScripts are the commands as a person meets them, as far as they need no
// sandbox; whole builds are in e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": status},
		Setup: func(env *testscript.Env) error {
			// The host's own settings must not decide.
			env.Setenv("TMPDIR", env.WorkDir)
			env.Setenv("PATH", env.WorkDir+"/bin:"+env.Getenv("PATH"))
			for _, name := range []string{"KANIKO_NO_PUSH", "KANIKO_REGISTRY_MAP", "KANIKO_REGISTRY_MIRROR", "DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "NO_COLOR"} {
				env.Setenv(name, "")
			}
			return nil
		},
	})
}

// status runs kbuild-sandbox with the arguments behind the first and wants that
// exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status code argument...")
	}
	err := ts.Exec("kbuild-sandbox", args[1:]...)
	var exit *exec.ExitError
	code := 0
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("kbuild-sandbox %s: status %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}
