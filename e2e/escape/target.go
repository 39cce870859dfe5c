package escape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// Target is what one attack works on: a directory of its own with canaries, and
// builds.
//
//	DIR/canary, DIR/etc/canary   files of the host, with the site's word
//	DIR/ctx                      the context
//	DIR/home                     $HOME, with credentials and keys
//	DIR/tmp                      $TMPDIR
//	DIR/out                      what builds write; the one place that may change
type Target struct {
	testing.TB
	*Site
	ID    int
	Dir   string
	Nonce string // of this attack: what runs prints it, so that it did run

	builds   int
	bases    int
	findings []string // of the oracles
}

// Build is a run of the launcher.
type Build struct {
	// Dockerfile is expanded: $BUSYBOX, $REGISTRY, $NONCE, $PUBLIC.
	Dockerfile string
	// Files are put into the context, by path; the helper program is always there
	// as probe, the nonce as nonce.
	Files map[string]string
	// Prepare makes what Files cannot.
	Prepare func(context string) error
	// Context is used instead of the directory: a URL, tar://, -.
	Context string
	Stdin   io.Reader
	Args    []string
	Env     []string
	// Push pushes to a repository of the attack's own instead of writing an OCI
	// layout.
	Push bool
	// Destination is pushed to instead.
	Destination string
	// Within bounds the build's time; 0: two minutes, for a machine that is busy.
	Within time.Duration
}

// Result is what a build came to.
type Result struct {
	t      *Target
	Status int
	Output string // standard output and error
	Layout string // the OCI layout, if the build wrote one
	Ref    string // the destination, where it was to push
	Took   time.Duration
}

// Build builds, with all oracles around it.
func (t *Target) Build(b Build) *Result {
	t.Helper()
	t.builds++
	dir := filepath.Join(t.Dir, "ctx")
	t.fill(dir, b)
	r := &Result{t: t, Layout: filepath.Join(t.Dir, "out", fmt.Sprintf("image%d", t.builds))}
	args := []string{"build", "--progress", "plain", "--insecure-registry", t.Registry, "--cache-dir", filepath.Join(t.Dir, "out", "cache")}
	switch {
	case b.Destination != "":
		args = append(args, "--destination", b.Destination)
	case b.Push:
		r.Ref = fmt.Sprintf("%s/attack/%03d:%d", t.Registry, t.ID, t.builds)
		args = append(args, "--destination", r.Ref)
	default:
		args = append(args, "--no-push", "--oci-layout-path", r.Layout)
	}
	args = append(args, b.Args...)
	if b.Context != "" {
		dir = b.Context
	}
	before := t.snapshot()
	attested := len(b.Args) == 0 && b.Context == "" // else the walls may have another form
	if attested {
		args = append(args, "--provenance-file", filepath.Join(t.Dir, "out", "provenance.json"))
	}
	t.run(r, b, append(args, dir))
	if attested && r.Status == 0 {
		t.findings = append(t.findings, t.posture(r)...)
	}
	t.findings = append(t.findings, t.changes(before)...)
	t.findings = append(t.findings, t.search(r)...)
	return r
}

// fill makes the context anew.
func (t *Target) fill(dir string, b Build) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	probe, err := os.ReadFile(t.Probe)
	must(t, err)
	put(t, filepath.Join(dir, "probe"), string(probe), 0o755)
	put(t, filepath.Join(dir, "nonce"), t.Nonce, 0o644)
	if b.Dockerfile != "" {
		put(t, filepath.Join(dir, "Dockerfile"), t.Expand(b.Dockerfile), 0o644)
	}
	for name, text := range b.Files {
		put(t, filepath.Join(dir, name), t.Expand(text), 0o644)
	}
	if b.Prepare != nil {
		must(t, b.Prepare(dir))
	}
	t.chown(dir)
}

// Expand fills in what a Dockerfile or a file may refer to.
func (t *Target) Expand(text string) string {
	return strings.NewReplacer("$BUSYBOX", t.Busybox, "$REGISTRY", t.Registry, "$NONCE", t.Nonce, "$PUBLIC", PublicIPv4).Replace(text)
}

// chown gives a tree to the user that builds.
func (t *Target) chown(dir string) {
	t.Helper()
	if t.User == 0 {
		return
	}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, t.User, t.User))
	}))
}

func (t *Target) run(r *Result, b Build, args []string) {
	t.Helper()
	within := b.Within
	if within == 0 {
		within = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(t.Bin, "kbuild-sandbox"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	cmd.Dir = filepath.Join(t.Dir, "out")
	home := filepath.Join(t.Dir, "home")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_CONFIG=" + filepath.Join(home, ".docker"),
		"TMPDIR=" + filepath.Join(t.Dir, "tmp"), "RUNNER_TOKEN=" + t.Word}, b.Env...)
	if t.User != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(t.User), Gid: uint32(t.User)}}
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = b.Stdin, &out, &out
	start := time.Now()
	err := cmd.Run()
	r.Took, r.Output = time.Since(start), out.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("the build did not end within %v:\n%s", within, r.Output)
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	t.Logf("%s: status %d after %v:\n%s", strings.Join(b.Args, " "), r.Status, r.Took.Round(time.Millisecond), r.Output)
}

// Done is Contained if the build succeeded and its output matches every pattern:
// the attack was really tried.
func (r *Result) Done(patterns ...string) Outcome {
	r.t.Helper()
	if r.Status != 0 {
		r.t.Fatalf("the build failed with status %d", r.Status)
	}
	r.Shows(patterns...)
	return Contained
}

// Rejected is Rejected if the build failed with an error that matches the
// pattern, and there is no image of it.
func (r *Result) Rejected(pattern string) Outcome {
	r.t.Helper()
	if r.Status == 0 {
		r.t.Fatal("the build succeeded")
	}
	r.Shows(pattern)
	if r.Ref != "" && r.t.Has(r.t, r.Ref) {
		r.t.Fatalf("%s was pushed", r.Ref)
	}
	if _, err := os.Stat(filepath.Join(r.Layout, "index.json")); err == nil {
		r.t.Fatal("the image was written")
	}
	return Rejected
}

// Shows wants that the output matches patterns.
func (r *Result) Shows(patterns ...string) {
	r.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + r.t.Expand(p)).MatchString(r.Output) {
			r.t.Fatalf("the output does not show %q", p)
		}
	}
}

// Hides wants that the output matches none of patterns.
func (r *Result) Hides(patterns ...string) {
	r.t.Helper()
	for _, p := range patterns {
		if found := regexp.MustCompile(`(?m)` + r.t.Expand(p)).FindString(r.Output); found != "" {
			r.t.Fatalf("the output shows %q", found)
		}
	}
}

// Image is the built image, flattened.
func (r *Result) Image() *flat.Image {
	r.t.Helper()
	img, err := flat.Open(r.Layout, v1.Platform{})
	must(r.t, err)
	return img
}
