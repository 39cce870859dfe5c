package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
what is missing. At the end sandboxes are really started, with nothing to build
in them, and their walls are measured. Exit status 1 if a build would not work.`

// finding is one thing that was looked at.
type finding struct {
	name     string
	ok       bool
	optional bool   // builds work without it
	found    string // what was found
	hint     string // what to do where it is not ok
}

// status is a finding's mark.
func (f finding) status() string {
	switch {
	case f.ok:
		return "ok"
	case f.optional:
		return "warning"
	}
	return "MISSING"
}

func (a *app) doctorCommand() *cobra.Command {
	var h host
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check that this machine can build",
		Long:  doctorLong,
		Args:  noArgs,
	}
	h.register(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print what was found as JSON, with all that was measured of the walls")
	c.RunE = func(c *cobra.Command, _ []string) error {
		list, posture := examine(c.Context(), h)
		if err := context.Cause(c.Context()); err != nil {
			return err
		}
		if asJSON {
			return a.findingsJSON(list, posture)
		}
		return a.findings(list)
	}
	return c
}

// examine looks at everything; what needs an earlier thing that is missing is
// left out.
func examine(ctx context.Context, h host) ([]finding, []request.RolePosture) {
	list := kernelFindings(procSys(), os.Geteuid() == 0)
	list = append(list, tries(list)...)
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
		return inContainer(list), nil
	}
	defer removeEmpty(unmade(h.work()))
	f, posture := trial(ctx, h)
	list = append(list, f)
	return append(inContainer(list), walls(posture)...), posture
}

// enoughRoom is the space below which doctor warns, in bytes.
const enoughRoom = 10 << 30

// unmade are the directories that a build would make for its work directory, the
// innermost first.
func unmade(dir string) (list []string) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		list = append(list, dir)
		dir = filepath.Dir(dir)
	}
	return list
}

// removeEmpty removes what the trial's build has made. What is in use stays.
func removeEmpty(list []string) {
	for _, dir := range list {
		if os.Remove(dir) != nil {
			return
		}
	}
}

// room looks at the disk of dir, or of the nearest directory above it that is
// there.
func room(dir string) finding {
	f, shown := finding{name: "work directory"}, dir
	if list := unmade(dir); len(list) > 0 {
		shown, dir = dir+" (a build makes it)", filepath.Dir(list[len(list)-1])
	}
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
	f.found = fmt.Sprintf("%s, %.1f GB free", shown, float64(free)/1e9)
	f.ok, f.optional = free >= enoughRoom, true
	if st.Type == unix.TMPFS_MAGIC {
		f.found += ", in memory"
		f.ok = false
	}
	f.hint = "everything that a build unpacks and makes lies there: name a directory on a larger disk with --work-dir"
	return f
}

// trialTimeout bounds the start of the sandboxes.
const trialTimeout = time.Minute

// trial builds an image of nothing: every wall is put up and measured.
func trial(ctx context.Context, h host) (finding, []request.RolePosture) {
	f := finding{name: "sandbox"}
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	cfg, err := h.config(ctx)
	if err != nil {
		f.found, f.hint = explain(err)
		return f, nil
	}
	if cfg.Context, err = os.MkdirTemp("", "kbuild-doctor-"); err != nil {
		f.found = err.Error()
		return f, nil
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
		f.found = fmt.Sprintf("%d of them, gVisor on systrap, %.1fs from start to end", len(res.Posture), time.Since(began).Seconds())
	}
	return f, res.Posture
}

// walls tells in a line what was measured of each sandbox, and the digest of it
// all.
func walls(posture []request.RolePosture) (list []finding) {
	for _, p := range posture {
		sentry := p.Outside.Processes[0]
		network := "no network"
		for _, i := range p.Inside.Network.Interfaces {
			network = "network by " + strings.Join(p.Inside.Network.Gateways, " ") + " on " + i.Name
		}
		list = append(list, finding{name: string(p.Role), ok: true, found: fmt.Sprintf(
			"uid %d, capabilities %s, seccomp %d, own %s; inside seccomp %d, %s",
			sentry.UID, strings.TrimLeft(sentry.Capabilities.Effective[:15], "0")+sentry.Capabilities.Effective[15:], sentry.Seccomp,
			strings.Join(sentry.Namespaces, " "), p.Inside.Seccomp, network)})
	}
	if digest, err := request.PostureDigest(posture); err == nil && len(posture) > 0 {
		list = append(list, finding{name: "posture", ok: true, found: digest})
	}
	return list
}

// diagnosis is what doctor --json prints.
type diagnosis struct {
	OK      bool                  `json:"ok"`
	Checks  []check               `json:"checks"`
	Posture []request.RolePosture `json:"posture,omitempty"`
	Digest  string                `json:"postureDigest,omitempty"`
}

type check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning, missing
	Found  string `json:"found"`
	Hint   string `json:"hint,omitempty"`
}

func (a *app) findingsJSON(list []finding, posture []request.RolePosture) error {
	d := diagnosis{OK: true, Posture: posture}
	for _, f := range list {
		c := check{Name: f.name, Status: strings.ToLower(f.status()), Found: progress.Clean(f.found)}
		if !f.ok {
			c.Hint = progress.Clean(f.hint)
		}
		d.OK = d.OK && (f.ok || f.optional)
		d.Checks = append(d.Checks, c)
	}
	if posture != nil {
		var err error
		if d.Digest, err = request.PostureDigest(posture); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return err
	}
	if !d.OK {
		return told{}
	}
	return nil
}

// findings prints the table.
func (a *app) findings(list []finding) error {
	width, missing := 0, false
	for _, f := range list {
		width = max(width, len(f.name))
	}
	var out strings.Builder
	for _, f := range list {
		mark := f.status()
		missing = missing || !f.ok && !f.optional
		indent := strings.Repeat(" ", markWidth+width+4)
		text := strings.ReplaceAll(strings.TrimSpace(progress.Clean(f.found)), "\n", "\n"+indent)
		fmt.Fprintf(&out, "%-*s  %-*s  %s\n", markWidth, mark, width, f.name, text)
		if !f.ok && f.hint != "" {
			fmt.Fprintf(&out, "%sto do: %s\n", indent, strings.ReplaceAll(progress.Clean(f.hint), "\n", "\n"+indent))
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

// markWidth is that of the longest mark.
const markWidth = len("MISSING")
