package e2e

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// agentCommand serves SSH agents to a script.
//
//	agent client FILE  builds ./agentclient as FILE, static
//	agent start NAME   starts ssh-agent; $NAME its socket
func agentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: agent client FILE, agent start NAME")
	}
	if args[0] == "client" {
		cmd := exec.Command("go", "build", "-o", ts.MkAbs(args[1]), "./agentclient")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		ts.Logf("%s", out)
		ts.Check(err)
		return
	}
	socket := filepath.Join(ts.Getenv("SIDE"), args[1]+".sock")
	// An agent serves its own user, and root.
	as := ts.Getenv("AS")
	cmd := exec.Command("setpriv", "--reuid", as, "--regid", as, "--clear-groups", "ssh-agent", "-D", "-a", socket)
	ts.Check(os.Chmod(filepath.Dir(socket), 0o777))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// It says where its socket is once it is there.
	_, err = out.Read(make([]byte, 1))
	ts.Check(err)
	ts.Setenv(args[1], socket)
}
