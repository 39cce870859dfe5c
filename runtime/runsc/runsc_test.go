package runsc

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script writes a program that answers --version.
func script(t *testing.T, dir, name, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	text := "#!/bin/sh\n[ \"$1\" = --version ] || exit 9\nprintf 'runsc version " + version + "\\nspec: 1.2.1\\n'\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	good := script(t, filepath.Join(dir, "good"), Name, "release-20260914.0")
	beside := script(t, filepath.Join(dir, "beside"), Name, "release-20260921.0")
	old := script(t, filepath.Join(dir, "old"), Name, "release-20260831.0")
	unknown := script(t, filepath.Join(dir, "unknown"), Name, "VERSION_MISSING")
	noexec := script(t, filepath.Join(dir, "noexec"), Name, "release-20260914.0")
	if err := os.Chmod(noexec, 0o644); err != nil {
		t.Fatal(err)
	}
	mute := filepath.Join(dir, "mute")
	if err := os.WriteFile(mute, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(good)+":/usr/bin:/bin")
	for _, tt := range []struct{ name, explicit, beside, path, err, hint string }{
		{"PATH", "", "", good, "", ""},
		{"PATH after an empty place", "", dir, good, "", ""},
		{"beside", "", filepath.Dir(beside), beside, "", ""},
		{"explicit", good, filepath.Dir(beside), good, "", ""},
		{"explicit, missing", filepath.Join(dir, "none"), filepath.Dir(beside), "", "cannot be started", "--runsc"},
		{"beside, not executable", "", filepath.Dir(noexec), "", "permission denied", "--runsc"},
		{"too old", old, "", "", "release-20260831.0, of 20260831; 20260901 or newer", "current gVisor"},
		{"unknown", unknown, "", "", "VERSION_MISSING, of unknown age", "current gVisor"},
		{"not runsc", mute, "", "", "does not say which gVisor it is", "--runsc"},
	} {
		r, err := Find(t.Context(), tt.explicit, tt.beside)
		var e *Error
		switch {
		case tt.err == "" && (err != nil || r.Path != tt.path):
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		case tt.err != "" && (!errors.As(err, &e) || !strings.Contains(e.Msg, tt.err) || !strings.Contains(e.Hint, tt.hint)):
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		}
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := Find(t.Context(), "", dir); err == nil || !strings.Contains(err.Error(), "was not found in "+dir+" or in PATH") {
		t.Errorf("nowhere: %v", err)
	}
}

func TestDateOf(t *testing.T) {
	for version, want := range map[string]string{
		"release-20260914.0":                    "20260914",
		"release-20260914.0-12-g0123456789ab":   "20260914",
		"google-20260914":                       "20260914",
		"v0.0.0-20260905035102-160fafc42237":    "20260905",
		"VERSION_MISSING":                       "",
		"release-2026":                          "",
		"0123456789ab-20269999999999999-dirty":  "",
		"release-20260914x":                     "",
		"v0.0.0-20260905035102-160fafc42237+20": "20260905",
	} {
		if got := dateOf(version); got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}

// Of a runsc that the go command built, the build information tells the age,
// stamped or not.
func TestRealVersion(t *testing.T) {
	r, err := Find(t.Context(), os.Getenv("KBUILD_RUNSC"), filepath.Join("..", "..", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Version)
	if r.Version.Date < MinDate || r.Version.Text == "VERSION_MISSING" {
		t.Errorf("version %+v", r.Version)
	}
}

// Every flag that is passed exists, with the value that it is meant to have:
// runsc itself is asked.
func TestFlagsExist(t *testing.T) {
	r, err := Find(t.Context(), os.Getenv("KBUILD_RUNSC"), filepath.Join("..", "..", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, s := range []Settings{
		{Root: dir, Log: dir + "/log", PanicLog: dir + "/panic"},
		{Root: dir, Log: dir + "/log", PanicLog: dir + "/panic", DebugDir: dir, DirectFS: true, NoSUID: true},
	} {
		if out, err := exec.Command(r.Path, append(Table(s).Args(), "list")...).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestTable(t *testing.T) {
	table := Table(Settings{Root: "/r", Log: "/l", PanicLog: "/p"})
	seen := map[string]bool{}
	for _, f := range table {
		if f.Why == "" || f.Value == "" || seen[f.Name] {
			t.Errorf("flag %+v lacks a reason or a value, or is there twice", f)
		}
		seen[f.Name] = true
	}
	for name, want := range map[string]string{
		"oci-seccomp": "true", "rootless": "false", "host-uds": "none", "allow-flag-override": "false", "debug": "false", "none": "",
	} {
		if got := table.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	debug := Table(Settings{DebugDir: "/d"})
	if !slices.Contains(debug.Args(), "--debug-log=/d/") || debug.Get("debug") != "true" {
		t.Errorf("debug: %q", debug.Args())
	}
}

// like starts a process that looks like one of gVisor's.
func like(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	return likeOf(t, nil, name, args...)
}

// likeOf does so as another user.
func likeOf(t *testing.T, who *syscall.Credential, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "echo up; while :; do sleep 1; done", args[0])
	cmd.Args = append([]string{name}, append(cmd.Args[1:], args[1:]...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: who}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	// Reaped at once, as gVisor's own processes are.
	reaped := make(chan error)
	go func() { reaped <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-reaped })
	return cmd
}

// Kill ends the processes of one root, and none of another whose name begins
// the same.
func TestKill(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"runsc", "runsc-sandbox", "runsc-gofer"} {
		like(t, name, "x", "--root="+root)
	}
	other := like(t, "runsc-sandbox", "x", "--root="+root+"2")
	procs, err := Processes(root)
	if err != nil {
		t.Fatal(err)
	}
	var roles []string
	for _, p := range procs {
		roles = append(roles, string(p.Role))
	}
	if slices.Sort(roles); !slices.Equal(roles, []string{"gofer", "run", "sentry"}) {
		t.Errorf("roles %q", roles)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	start := time.Now()
	if err := Kill(ctx, root); err != nil {
		t.Error(err)
	}
	t.Log("gone after", time.Since(start))
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other is gone too: %v", err)
	}
	if err := Kill(ctx, root); err != nil {
		t.Errorf("nothing to kill: %v", err)
	}
}

// What another user starts is no process of a sandbox, whatever it calls itself;
// nor is one that somebody else has started.
func TestDecoys(t *testing.T) {
	root := t.TempDir()
	own := like(t, "runsc-sandbox", "x", "--root="+root)
	if os.Geteuid() == 0 {
		likeOf(t, &syscall.Credential{Uid: 4711, Gid: 4711}, "runsc-sandbox", "x", "--root="+root)
		likeOf(t, &syscall.Credential{Uid: nobody, Gid: nobody}, "runsc-gofer", "x", "--root="+root)
	}
	pids := func(list []Process, err error) (pids []int) {
		if err != nil {
			t.Error(err)
		}
		for _, p := range list {
			pids = append(pids, p.PID)
		}
		return pids
	}
	if got := pids(Below(own.Process.Pid, root)); !slices.Equal(got, []int{own.Process.Pid}) {
		t.Errorf("below it: %d", got)
	}
	if got := pids(Below(os.Getpid(), root)); !slices.Contains(got, own.Process.Pid) {
		t.Errorf("below this test: %d", got)
	}
	want := 1
	if os.Geteuid() == 0 {
		want = 2 // and nobody's, which may be one of ours
	}
	if got := pids(Processes(root)); len(got) != want {
		t.Errorf("processes: %d", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := Kill(ctx, root); err != nil {
		t.Errorf("the decoy keeps it from ending: %v", err)
	}
}

func TestCommand(t *testing.T) {
	r := &Runsc{Path: "/r"}
	cmd := r.Command(Start{Flags: Flags{{"a", "b", ""}}, Bundle: "/bundle", ID: "id", Userns: true})
	want := []string{"/r", "--a=b", "run", "--bundle=/bundle", "--pass-fd=3:3", "id"}
	if !slices.Equal(cmd.Args, want) || cmd.Env == nil || len(cmd.Env) != 0 {
		t.Errorf("args %q, env %q", cmd.Args, cmd.Env)
	}
	a := cmd.SysProcAttr
	if a.Pdeathsig != syscall.SIGKILL || !a.Setsid || a.Cloneflags != syscall.CLONE_NEWUSER || a.UidMappings[0].Size != 1 || a.GidMappingsEnableSetgroups {
		t.Errorf("attributes %+v", a)
	}
}
