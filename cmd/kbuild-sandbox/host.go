package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// executorName is the file name of the part that works inside.
const executorName = "kbuild-executor"

// host holds the flags about this machine.
type host struct {
	runsc    string
	executor string
	workDir  string
	debugDir string
	noSUID   bool
}

func (h *host) register(fs *pflag.FlagSet) {
	fs.StringVar(&h.runsc, "runsc", "", "gVisor's `program` (default: runsc beside kbuild-sandbox, else in PATH)")
	fs.StringVar(&h.executor, "executor", "", "the executor's `program` (default: kbuild-executor beside kbuild-sandbox, else in PATH)")
	fs.StringVar(&h.workDir, "work-dir", "", "`directory` for everything that a build unpacks and makes (default: $TMPDIR or /tmp)")
	fs.StringVar(&h.debugDir, "debug-dir", "", "`directory` for gVisor's own logs (default: none are written)")
	fs.BoolVar(&h.noSUID, "no-suid", false, "set-user-id programs in RUN steps do not elevate")
}

// config is what a run needs of this machine.
func (h *host) config(ctx context.Context) (sandbox.Config, error) {
	rs, err := runsc.Find(ctx, h.runsc, besideUs())
	if err != nil {
		return sandbox.Config{}, err
	}
	executor, err := h.findExecutor()
	if err != nil {
		return sandbox.Config{}, err
	}
	return sandbox.Config{
		Runsc: rs, Version: stamped(), Executor: executor, WorkDir: h.work(), DebugDir: h.debugDir, NoSUID: h.noSUID,
	}, nil
}

func (h *host) work() string {
	if h.workDir != "" {
		return h.workDir
	}
	return os.TempDir()
}

// findExecutor is the executor's program: the one that was named, else beside
// the launcher, else in PATH.
func (h *host) findExecutor() (string, error) {
	if h.executor != "" {
		path, err := exec.LookPath(h.executor)
		if err != nil {
			return "", &sandbox.WallError{Wall: "executor", Msg: "cannot be started", Err: err, Hint: "name it with --executor"}
		}
		return filepath.Abs(path)
	}
	if beside := besideUs(); beside != "" {
		if path, err := exec.LookPath(filepath.Join(beside, executorName)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(executorName)
	if err != nil {
		return "", &sandbox.WallError{
			Wall: "executor", Msg: executorName + " was not found beside kbuild-sandbox or in PATH",
			Hint: "put it beside kbuild-sandbox, or name it with --executor",
		}
	}
	return filepath.Abs(path)
}

// besideUs is the directory of the launcher's own file, or empty.
func besideUs() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return filepath.Dir(self)
}

// from is where the command line was given.
func (a *app) from(args []string) (flags.From, error) {
	dir, err := os.Getwd()
	if err != nil {
		return flags.From{}, &flags.Error{Msg: "current directory: " + err.Error(), Input: true}
	}
	return flags.From{
		Args: args, Dir: dir, Context: ".", CacheDir: flags.StandardCacheDir(a.env), KeepsSteps: true,
		HostGateway: gateway.GatewayIPv4, Env: a.env,
	}, nil
}
