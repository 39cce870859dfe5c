package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/trace"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
)

// podContext is where Kaniko's users mount their context.
const podContext = "/workspace"

// maxDockerfile bounds a Dockerfile from standard input, in bytes.
const maxDockerfile = 8 << 20

// podFlags are the flags of in-pod mode.
type podFlags struct {
	set     *pflag.FlagSet
	build   *flags.Build
	log     *flags.Log
	from    flags.From // set by request
	trace   string     // set by request
	force   bool
	workDir string
	help    bool
	version bool
}

func newPodFlags() *podFlags {
	f := &podFlags{set: pflag.NewFlagSet("executor", pflag.ContinueOnError)}
	f.set.BoolVar(&f.force, "force", false, "build although this is not gVisor")
	f.set.StringVar(&f.workDir, "work-dir", "", "the workspace's `directory`, on a tmpfs or an emptyDir (default: a tmpfs of its own)")
	f.set.BoolVarP(&f.help, "help", "h", false, "show this help")
	f.set.BoolVar(&f.version, "version", false, "show the version")
	f.build, f.log = flags.Register(f.set), flags.RegisterLog(f.set)
	f.set.Usage = func() {}
	return f
}

// request makes a build of the command line.
func (f *podFlags) request(args []string) (request.Build, flags.Outputs, error) {
	if err := f.set.Parse(args); err != nil {
		return request.Build{}, flags.Outputs{}, flags.ParseError(f.set, err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return request.Build{}, flags.Outputs{}, err
	}
	f.from = flags.From{Args: f.set.Args(), Dir: dir, Context: podContext, Env: os.LookupEnv}
	req, out, err := f.build.Request(f.from)
	if err == nil {
		f.trace, err = f.log.Trace(dir, string(req.Context))
	}
	return req, out, err
}

// parseOnly does what needs no sandbox: help, version and wrong command lines.
func parseOnly(args []string) (code int, done bool) {
	f := newPodFlags()
	if len(args) == 1 && args[0] == "version" {
		f.version = true
	} else if _, _, err := f.request(args); err != nil && !f.help && !f.version {
		return usageError(err), true
	}
	switch {
	case f.help:
		fmt.Print("Builds an image from a Dockerfile inside gVisor and pushes it.\n\n" +
			"usage: executor [flags]\n" + flags.Usages(f.set))
		return 0, true
	case f.version:
		fmt.Println(version)
		return 0, true
	}
	return 0, false
}

func usageError(err error) int {
	var hint string
	var usage *flags.Error
	if errors.As(err, &usage) {
		hint = usage.Hint
	}
	_ = progress.Error(os.Stderr, err.Error(), hint, progress.Options{})
	return 2
}

// command builds what the command line says.
func command(args []string) int {
	f := newPodFlags()
	req, out, err := f.request(args)
	if err != nil {
		return usageError(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	opt := f.log.Options(term.IsTerminal(int(os.Stderr.Fd())), os.LookupEnv)
	opt.Size = func() (int, int) {
		columns, rows, err := term.GetSize(int(os.Stderr.Fd()))
		if err != nil {
			return 80, 24
		}
		return columns, rows
	}
	opt.Mask = mask.New()
	opt.Mask.AddURLs(args...)
	display := progress.New(os.Stderr, opt)
	for _, text := range f.build.Warnings() {
		display.Emit(request.Event{Kind: request.EventWarning, Text: text})
	}
	result, err := traced(ctx, &req, out, f, shown{display, display, opt.Mask})
	display.Close()
	if err != nil {
		_ = progress.Error(os.Stderr, err.Error(), "", opt)
		return 1
	}
	if result.Failure != nil {
		_ = progress.Report(os.Stderr, *result.Failure, opt)
		return flags.ExitCode(*result.Failure)
	}
	if req.Call != "" {
		return answer(result, opt.Mask)
	}
	if err := out.Write(result); err != nil {
		return complain(err)
	}
	return 0
}

// answer prints what was asked for instead of an image.
func answer(result request.Result, values *mask.Values) int {
	if result.Called == nil {
		return complain(errors.New("there is no answer"))
	}
	if err := progress.Answer(os.Stdout, *result.Called, values); err != nil {
		return complain(err)
	}
	if result.Called.Failed {
		return 1
	}
	return 0
}

// shown is where a build is shown, and what must not be.
type shown struct {
	*progress.Display
	sink request.Sink // what shows its steps
	mask *mask.Values
}

// traced builds with a trace, if there is to be one.
func traced(ctx context.Context, req *request.Build, out flags.Outputs, f *podFlags, display shown) (request.Result, error) {
	to, err := trace.Create(f.trace, display, display.mask.Text)
	if err != nil {
		return request.Result{}, err
	}
	display.sink = to
	result, err := buildHere(ctx, req, out, f, display)
	if e := to.Close(); err == nil {
		err = e
	}
	return result, err
}

func buildHere(ctx context.Context, req *request.Build, out flags.Outputs, f *podFlags, display shown) (request.Result, error) {
	lent, err := f.build.Lend(f.from, display)
	if err != nil {
		return request.Result{}, err
	}
	lent.Mask(display.mask)
	work, cleanup, err := workspace(f.workDir)
	if err != nil {
		return request.Result{}, err
	}
	defer cleanup()
	req.Workspace = request.GuestPath(work)
	if err := readStdin(req, work, os.Stdin); err != nil {
		return request.Result{}, err
	}
	if req.Run.DNS, err = resolvConf(); err != nil {
		return request.Result{}, err
	}
	agent := "kbuild-sandbox/" + version
	images, err := registry.New(registry.Config{
		Registry: req.Registry, Keychain: maskedKeychain{authn.DefaultKeychain, display.mask}, UserAgent: agent, Proxy: http.ProxyFromEnvironment,
		Note: noteTo(display),
	})
	if err != nil {
		return request.Result{}, err
	}
	posture, err := measure()
	if err != nil {
		return request.Result{}, err
	}
	nodes := &nodeMaker{sock: nodesFd}
	caches, err := podCaches(req)
	if err != nil {
		return request.Result{}, err
	}
	if caches != nil {
		defer trim(caches, display)
	}
	tools := executor.Tools{
		Images: images, Secret: lent.Secret, Agent: lent.Agent, Sink: display.sink,
		Outlet: &fileOutlet{layout: out.Layout, results: req.CacheTo, tar: out.Tar, caches: caches},
		Nodes:  nodes.make, Posture: posture, Walls: podWalls(f.force),
	}
	if err := addSources(req, buildcontext.HTTPConfig{UserAgent: agent, Proxy: http.ProxyFromEnvironment}, &tools); err != nil {
		return request.Result{}, err
	}
	return executor.All(ctx, req, tools), nil
}

// workspace makes the directory that everything is built in: below dir, or a
// tmpfs of our own.
func workspace(dir string) (path string, cleanup func(), err error) {
	if dir == "" {
		return rootfs.Workspace()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", nil, fmt.Errorf("work directory %s: %w", dir, err)
	}
	if st.Type != unix.TMPFS_MAGIC {
		return "", nil, fmt.Errorf("work directory %s is not on a tmpfs of gVisor: mount an emptyDir there", dir)
	}
	path, err = os.MkdirTemp(dir, "k")
	if err != nil {
		return "", nil, fmt.Errorf("work directory: %w", err)
	}
	return path, func() { os.RemoveAll(path) }, nil
}

// readStdin keeps a context or a Dockerfile that comes on standard input.
func readStdin(req *request.Build, work string, in io.Reader) error {
	if req.Source.Tar == flags.Stdin {
		return keepContext(req, work, in)
	}
	if req.Dockerfile != flags.Stdin {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(in, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("read Dockerfile from standard input: %w", err)
	}
	if len(data) > maxDockerfile {
		return errors.New("the Dockerfile on standard input is too large")
	}
	path := filepath.Join(work, "Dockerfile")
	req.Dockerfile = request.GuestPath(path)
	return os.WriteFile(path, data, 0o600)
}

// keepContext keeps a context that comes on standard input until it is unpacked.
func keepContext(req *request.Build, work string, in io.Reader) error {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return errors.New("no context on standard input: it is a terminal")
	}
	path := filepath.Join(work, "context.tar")
	req.Source.Tar = request.GuestPath(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, in); err != nil {
		f.Close()
		return fmt.Errorf("read the context from standard input: %w", err)
	}
	return f.Close()
}

func resolvConf() ([]string, error) {
	data, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod's resolv.conf: %w", err)
	}
	return strings.Split(strings.TrimRight(string(bytes.ToValidUTF8(data, nil)), "\n"), "\n"), nil
}
