package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// version is stamped by the Makefile.
var version string

func main() {
	if gateway.IsFirstStage(os.Args) {
		fmt.Fprintln(os.Stderr, gateway.FirstStage(os.Args))
		os.Exit(exitSandbox)
	}
	ctx, stop := withSignals(context.Background())
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is the process as the commands see it.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(name string) (string, bool)
	terminal       bool // standard error is one
	json           bool // errors are told as JSON lines
	color          bool // errors may have colours
	mask           *mask.Values
	ending         *time.Timer // ends the process where nobody reads its last words
}

func (a *app) run(ctx context.Context, args []string) int {
	a.mask = mask.New()
	a.mask.AddURLs(args...)
	root := &cobra.Command{
		Use:               "kbuild-sandbox",
		Short:             "Build container images inside gVisor, without a daemon",
		Long:              longHelp,
		Version:           versionText(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		err = flags.ParseError(c.Flags(), err)
		var e *flags.Error
		if c == root && errors.As(err, &e) && e.Hint == "" {
			e.Hint = "the flags of a build go behind the word build: kbuild-sandbox build [flags] [CONTEXT]"
		}
		return err
	})
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate(versionLine())
	root.AddCommand(a.buildCommand(), a.specCommand(), a.doctorCommand(), a.cacheCommand(), a.pruneCommand(), a.signCommand(), a.versionCommand())
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.As(err, new(told)) {
		a.report(err)
	}
	if a.ending != nil {
		a.ending.Stop()
	}
	return exitCode(ctx, err)
}

const longHelp = `Build container images from Dockerfiles inside gVisor: no daemon, no privileged
container. RUN steps are root only in the sandbox; pulls, snapshots and pushes
happen there too.

  kbuild-sandbox build -t registry.example.com/team/app:1 .
`

// noArgs refuses an argument of a command that takes none, and proposes the
// command that was meant.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasParent() {
		return &flags.Error{Msg: c.CommandPath() + " takes no arguments, but there is " + args[0]}
	}
	hint := "kbuild-sandbox --help lists the commands"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + c.CommandPath() + " " + near[0] + "?"
	}
	return &flags.Error{Msg: "unknown command " + args[0], Hint: hint}
}

// Exit statuses of the launcher. That of a RUN step may be any of them.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitBroken  = 70 // EX_SOFTWARE of sysexits.h
	exitSandbox = 125
)

const exitHelp = `Exit status:
  0        the image is built, and pushed where that was asked for
  1        the build failed: Dockerfile, context, registry, disk
  2        the command line cannot be carried out
  70       the sandbox died, or broke the protocol with what watches it
  124      a limit of time was reached: --timeout, --step-timeout
  125      no sandbox: gVisor is missing, a wall is not in force, a limit cannot be had
  128+n    signal n ended the build
  another  the exit status of the RUN step that failed
`

// exitCode is the one place that decides on the exit status; exitHelp tells it
// to people.
func exitCode(ctx context.Context, err error) int {
	var (
		signal  signalError
		failed  *buildError
		usage   *flags.Error
		wall    *sandbox.WallError
		end     *sandbox.EndError
		noRunsc *runsc.Error
	)
	switch {
	case err == nil:
		return 0
	case errors.As(context.Cause(ctx), &signal):
		return 128 + int(signal.signal)
	case errors.As(err, &failed):
		return flags.ExitCode(*failed.result.Failure)
	case errors.As(err, &usage) && !usage.Input:
		return exitUsage
	case errors.As(err, &wall), errors.As(err, &noRunsc):
		return exitSandbox
	case errors.As(err, &end):
		return exitBroken
	}
	return exitFailed
}
