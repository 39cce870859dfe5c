package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/cgroup"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// helperEnv makes the test binary a launcher: its value is a job as JSON.
const helperEnv = "KBUILD_SANDBOX_TEST_JOB"

// job is one run of the guest by a launcher of its own.
type job struct {
	Act     string
	Base    string // gets w (work directory), ctx (context)
	Guest   string
	Runsc   string
	Layout  string
	Tar     string
	Quota   int64
	Push    bool
	Memory  int64 // limit of all sandboxes together, in bytes
	DenyNum int   // a system call that is refused to the launcher and to all below it
}

// built is what TestMain makes, for all tests.
type built struct{ dir, guest, runsc, self string }

func testFiles(t *testing.T) built {
	t.Helper()
	dir := os.Getenv("KBUILD_SANDBOX_TEST_DIR")
	return built{dir: dir, guest: filepath.Join(dir, "guest"), runsc: os.Getenv("KBUILD_SANDBOX_TEST_RUNSC"), self: filepath.Join(dir, "self")}
}

func TestMain(m *testing.M) {
	if gateway.IsFirstStage(os.Args) {
		fmt.Fprintln(os.Stderr, gateway.FirstStage(os.Args))
		os.Exit(125)
	}
	if j := os.Getenv(helperEnv); j != "" {
		os.Exit(helper(j))
	}
	code, err := withFiles(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withFiles builds the guest and copies this program where everybody can run
// it. KBUILD_RUNSC names the runsc; without it, the one in bin or in PATH.
func withFiles(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sbtest")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	r, err := runsc.Find(context.Background(), os.Getenv("KBUILD_RUNSC"), filepath.Join("..", "bin"))
	if err != nil {
		return 1, err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "guest"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build guest: %w\n%s", err, out)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(filepath.Join(dir, "self"), self, 0o755); err != nil {
		return 1, err
	}
	os.Setenv("KBUILD_SANDBOX_TEST_DIR", dir)
	os.Setenv("KBUILD_SANDBOX_TEST_RUNSC", r.Path)
	return m.Run(), nil
}

// outcome is what a launcher prints at the end.
type outcome struct {
	Result request.Result
	Err    string
	Wall   *WallError
	End    *EndError
	Took   time.Duration
}

// helper is a launcher of its own: events and outcome are lines of JSON.
func helper(text string) int {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if j.DenyNum != 0 {
		if err := denyCall(j.DenyNum); err != nil {
			fmt.Fprintln(os.Stderr, "seccomp:", err)
			return 2
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := j.config(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	enc := json.NewEncoder(os.Stdout)
	c.Sink = sinkFunc(func(e request.Event) {
		if e.Kind != request.EventPhase { // nobody says it
			_ = enc.Encode(e)
		}
	})
	start := time.Now()
	res, err := Run(ctx, c)
	o := outcome{Result: res, Took: time.Since(start)}
	if err != nil {
		o.Err = err.Error()
		errors.As(err, &o.Wall)
		errors.As(err, &o.End)
		if o.Wall != nil {
			o.Wall.Err = nil
		}
		if o.End != nil {
			o.End.Err = nil
		}
	}
	_ = enc.Encode(o)
	return 0
}

// config makes the config of a job, and its files.
func (j job) config(ctx context.Context) (Config, error) {
	r, err := runsc.Find(ctx, j.Runsc, "")
	if err != nil {
		return Config{}, err
	}
	ctxDir := filepath.Join(j.Base, "ctx")
	if err := os.MkdirAll(ctxDir, 0o755); err != nil {
		return Config{}, err
	}
	var req request.Build
	if j.Push {
		req.Destinations = []string{"registry.example/image"}
	}
	return Config{
		Limits: Limits{Limits: cgroup.Limits{Memory: j.Memory}}, Request: req, Context: ctxDir, DockerfileData: []byte(j.Act + "\n"), Executor: j.Guest, Runsc: r,
		WorkDir: filepath.Join(j.Base, "w"), Quota: j.Quota,
		Outputs: Outputs{LayoutDir: j.Layout, TarPath: j.Tar},
	}, nil
}

type sinkFunc func(request.Event)

func (f sinkFunc) Emit(e request.Event) { f(e) }

// recorder is a sink that remembers texts and can be waited for.
type recorder struct {
	mu    sync.Mutex
	texts []string
	more  chan struct{}
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{}, 1<<16)} }

func (r *recorder) Emit(e request.Event) {
	if e.Kind == request.EventPhase {
		return
	}
	r.mu.Lock()
	r.texts = append(r.texts, e.Text)
	r.mu.Unlock()
	r.more <- struct{}{}
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.texts)
}

func (r *recorder) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !slices.Contains(r.all(), text) {
		select {
		case <-r.more:
		case <-deadline:
			t.Fatalf("never heard %q, only %q", text, r.all())
		}
	}
}

// newJob makes a job with a base that any user can reach, and checks in the end
// that nothing is left in it.
func newJob(t *testing.T, act string) job {
	t.Helper()
	b := testFiles(t)
	base, err := os.MkdirTemp(b.dir, "j")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nothingLeft(t, base) })
	return job{Act: act, Base: base, Guest: b.guest, Runsc: b.runsc}
}

// nothingLeft checks processes, mounts and files.
func nothingLeft(t *testing.T, base string) {
	t.Helper()
	if p := processesOf(t, base); len(p) > 0 {
		t.Errorf("processes are left: %q", p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), base) {
		t.Errorf("a mount is left (%v)", err)
	}
	entries, err := os.ReadDir(filepath.Join(base, "w"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, e := range entries {
		t.Errorf("left in the work directory: %s", e.Name())
	}
}

// processesOf finds processes by their command line.
func processesOf(t *testing.T, base string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(line), base) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// run runs a job in this process.
func run(t *testing.T, j job, change func(*Config)) (request.Result, []string, error) {
	t.Helper()
	c, err := j.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecorder()
	c.Sink = rec
	if change != nil {
		change(&c)
	}
	res, err := Run(t.Context(), c)
	return res, rec.all(), err
}
