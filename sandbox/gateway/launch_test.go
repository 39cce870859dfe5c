package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// launcherEnv makes the test program a launcher; its value is a job as JSON.
const launcherEnv = "KBUILD_GATEWAY_TEST_JOB"

// testSelf is this program, wherever it is.
const testSelf = "/proc/self/exe"

// job is a program on the sandbox's side of a link.
type job struct {
	Command  []string
	Userns   bool
	Allow    []string
	Resolver string // address and port
	Limits   Limits
	Client   []string // make this program the command, as a client of speedServer
	Hold     bool     // print a line when it runs, and go on
}

// outcome is what came of a job.
type outcome struct {
	Output   string
	Status   int
	Err      string
	Records  []Record
	Counters Counters
	Took     time.Duration
}

// launcher runs a job and prints the outcome.
func launcher(text string) int {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	out, err := j.run()
	if err != nil {
		out.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 2
	}
	return 0
}

func (j job) run() (out outcome, err error) {
	// The command dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(j.Command[0], j.Command[1:]...)
	var text bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{}, &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true, Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC}
	if j.Userns {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if j.Client != nil {
		cmd.Path, cmd.Args = testSelf, []string{"client", clientArg, strings.Join(j.Client, " ")}
	}
	start, err := Through(cmd, testSelf)
	if err != nil {
		return out, err
	}
	defer start.Close()
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return out, err
	}
	g, err := j.gateway(start, &out)
	if err == nil {
		err = start.Go()
		if j.Hold {
			fmt.Println(cmd.Process.Pid)
		}
	}
	start.Close()
	werr := cmd.Wait()
	out.Took, out.Output, out.Status = time.Since(begin), text.String(), cmd.ProcessState.ExitCode()
	if err != nil {
		return out, fmt.Errorf("%w (%v)", err, werr)
	}
	err = g.Close()
	out.Counters = g.Counters()
	return out, err
}

// gateway starts the gateway of a started command.
func (j job) gateway(start *Start, out *outcome) (*Gateway, error) {
	link, err := start.Link()
	if err != nil {
		return nil, err
	}
	c := Config{Link: link, Egress: policy.RunEgress(), Role: "build", Limits: j.Limits}
	for _, a := range j.Allow {
		rules, err := policy.ParseAllow(a)
		if err != nil {
			return nil, err
		}
		c.Egress.Allow = append(c.Egress.Allow, rules...)
	}
	if j.Resolver != "" {
		c.Resolvers = []netip.AddrPort{netip.MustParseAddrPort(j.Resolver)}
	}
	var mu sync.Mutex
	c.Sink = func(r Record) {
		mu.Lock()
		defer mu.Unlock()
		out.Records = append(out.Records, r)
	}
	return New(c)
}

// as is who the launcher is.
type as struct {
	name string
	uid  int
}

var everybody = []as{{"root", 0}, {"user", 65534}}

// launch runs a job by a launcher of its own, as somebody.
func launch(t testing.TB, who as, j job) outcome {
	t.Helper()
	cmd := launchCommand(t, who, j)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("launcher: %v\n%s", err, stderr.String())
	}
	var out outcome
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("launcher: %v: %q %s", err, b, stderr.String())
	}
	if strings.Contains(out.Err, "operation not permitted") || strings.Contains(out.Err, "no space left") {
		t.Skipf("no namespaces here: %s", out.Err)
	}
	if out.Err != "" {
		t.Fatalf("%s: %s", out.Err, out.Output)
	}
	return out
}

func launchCommand(t testing.TB, who as, j job) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 && who.uid == 0 {
		t.Skip("needs root")
	}
	j.Userns = who.uid != 0
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testProgram(t))
	cmd.Env = []string{launcherEnv + "=" + string(text)}
	cmd.Dir = "/"
	if os.Geteuid() == 0 && who.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.uid)}}
	}
	return cmd
}

// testProgram is a copy of this program where everybody can run it.
func testProgram(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(openDir(t), "launcher")
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// openDir is a directory that everybody can look into.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
