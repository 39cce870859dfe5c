package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

const doctorLong = `Look at each thing that a build needs of this machine and say what to do about
what is missing. At the end a sandbox is really started, with nothing to build
in it. Exit status 1 if a build would not work.`

// finding is one thing that was looked at.
type finding struct {
	name     string
	ok       bool
	optional bool   // builds work without it
	found    string // what was found
	hint     string // what to do where it is not ok
}

func (a *app) doctorCommand() *cobra.Command {
	var h host
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check that this machine can build",
		Long:  doctorLong,
		Args:  noArgs,
	}
	h.register(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		list := examine(c.Context(), h)
		if err := context.Cause(c.Context()); err != nil {
			return err
		}
		return a.findings(list)
	}
	return c
}

// examine looks at everything; what needs an earlier thing that is missing is
// left out.
func examine(ctx context.Context, h host) []finding {
	list := kernelFindings(procSys(), os.Geteuid() == 0)
	rs, err := runsc.Find(ctx, h.runsc, besideUs())
	f := finding{name: "gVisor", ok: err == nil}
	if err != nil {
		f.found, f.hint = explain(err)
	} else {
		f.found = rs.Version.Text + ", " + rs.Path
	}
	list = append(list, f)

	path, errExecutor := h.findExecutor()
	f = finding{name: "executor", ok: errExecutor == nil, found: path}
	if errExecutor != nil {
		f.found, f.hint = explain(errExecutor)
	}
	list = append(list, f, room(h.work()), limits())
	if err != nil || errExecutor != nil {
		return list
	}
	return append(list, trial(ctx, h))
}

// enoughRoom is the space below which doctor warns, in bytes.
const enoughRoom = 10 << 30

func room(dir string) finding {
	f := finding{name: "work directory"}
	probe, err := os.MkdirTemp(dir, "kbuild-doctor-")
	if err != nil {
		f.found, f.hint = err.Error(), "name a directory that can be written with --work-dir"
		return f
	}
	defer os.Remove(probe)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		f.found, f.hint = err.Error(), "name another directory with --work-dir"
		return f
	}
	free := st.Bavail * uint64(st.Bsize)
	f.found = fmt.Sprintf("%s, %.1f GB free", dir, float64(free)/1e9)
	f.ok, f.optional = free >= enoughRoom, true
	if st.Type == unix.TMPFS_MAGIC {
		f.found += ", in memory"
		f.ok = false
	}
	f.hint = "everything that a build unpacks and makes lies there: name a directory on a larger disk with --work-dir"
	return f
}

// trialTimeout bounds the start of one sandbox.
const trialTimeout = time.Minute

// trial builds an image of nothing: every wall is put up and measured.
func trial(ctx context.Context, h host) finding {
	f := finding{name: "sandbox"}
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	cfg, err := h.config(ctx)
	if err != nil {
		f.found, f.hint = explain(err)
		return f
	}
	if cfg.Context, err = os.MkdirTemp("", "kbuild-doctor-"); err != nil {
		f.found = err.Error()
		return f
	}
	defer os.Remove(cfg.Context)
	cfg.DockerfileData = []byte("FROM scratch\nLABEL doctor=1\n")
	cfg.Request = request.Build{NoPush: true}
	began := time.Now()
	res, err := sandbox.Run(ctx, cfg)
	switch {
	case err != nil:
		f.found, f.hint = explain(err)
	case res.Failure != nil:
		f.found, f.hint = res.Failure.Message, res.Failure.Hint
	default:
		f.ok = true
		f.found = fmt.Sprintf("gVisor %s, seccomp %d inside, %.1fs from start to end", res.Posture[0].Inside.Kernel, res.Posture[0].Inside.Seccomp, time.Since(began).Seconds())
	}
	return f
}

// findings prints the table.
func (a *app) findings(list []finding) error {
	width, missing := 0, false
	for _, f := range list {
		width = max(width, len(f.name))
	}
	var out strings.Builder
	for _, f := range list {
		mark := "ok     "
		switch {
		case !f.ok && f.optional:
			mark = "warning"
		case !f.ok:
			mark, missing = "MISSING", true
		}
		indent := strings.Repeat(" ", len(mark)+width+4)
		text := strings.ReplaceAll(strings.TrimSpace(progress.Clean(f.found)), "\n", "\n"+indent)
		fmt.Fprintf(&out, "%s  %-*s  %s\n", mark, width, f.name, text)
		if !f.ok && f.hint != "" {
			fmt.Fprintf(&out, "%sto do: %s\n", indent, progress.Clean(f.hint))
		}
	}
	if missing {
		out.WriteString("\nThis machine cannot build yet.\n")
	} else {
		out.WriteString("\nThis machine can build.\n")
	}
	if _, err := fmt.Fprint(a.stdout, out.String()); err != nil {
		return err
	}
	if missing {
		return told{}
	}
	return nil
}
