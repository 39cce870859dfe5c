package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// paths are where the parts of one case lie.
type paths struct {
	dir     string            // everything
	files   string            // the case's files
	tmp     string            // $TMPDIR of the builder; empty again when it ends
	layout  string            // where the image has to appear
	host    string            // of the registry
	web     string            // host of the case's web server
	replace *strings.Replacer // placeholders -> what stands for them here
	back    *strings.Replacer // and back
}

// outcome is how a build ended.
type outcome struct {
	exit    int
	hung    bool
	log     string // all that was printed, decoded
	failure *request.Failure
	known   bool // failure has class and line, and layers and history are BuildKit's
}

// builder is what the cases are run with.
type builder interface {
	// takes are the cases that are for this builder.
	takes(all []*testCase) []*testCase
	// build runs one build.
	build(ctx context.Context, c *testCase, p paths) (outcome, error)
	// judge says what is wrong with its outcome; nothing, if nothing is.
	judge(c *testCase, out outcome, p paths, bases string) []string
}

// ours is bin/kbuild-sandbox.
type ours struct {
	bin string
	as  *syscall.Credential // nil: as we are
}

func (ours) takes(all []*testCase) []*testCase { return all }

func (ours) judge(c *testCase, out outcome, p paths, bases string) []string {
	return c.judge(out, p, bases)
}

func (o ours) build(ctx context.Context, c *testCase, p paths) (outcome, error) {
	args, err := o.args(c, p)
	if err != nil {
		return outcome{}, err
	}
	cmd := exec.CommandContext(ctx, o.bin, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: o.as}
	out, err := run(cmd, c, p)
	if err != nil {
		return out, err
	}
	out.known = true
	out.log, out.failure = readEvents(out.log)
	if out.failure == nil && out.exit != 0 {
		out.failure = &request.Failure{Message: "(no result printed) " + out.log}
	}
	return out, nil
}

func (o ours) args(c *testCase, p paths) ([]string, error) {
	opts := c.Opts
	args := []string{
		"build", "--context", filepath.Join(p.files, "context"),
		"--dockerfile", filepath.Join(p.files, opts.Dockerfile),
		"--no-push", "--oci-layout-path", p.layout, "--insecure-registry", p.host, "--allow-net", p.web, "--progress", "json",
	}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, p.replace.Replace(value))
		}
	}
	add("--target", opts.Target)
	add("--platform", opts.Platform)
	for _, k := range slices.Sorted(maps.Keys(opts.BuildArgs)) {
		add("--build-arg", k+"="+opts.BuildArgs[k])
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Labels)) {
		add("--label", k+"="+opts.Labels[k])
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Secrets)) {
		f := filepath.Join(p.dir, "secret-"+k)
		if err := os.WriteFile(f, []byte(opts.Secrets[k]), 0o600); err != nil {
			return nil, err
		}
		add("--secret", "id="+k+",src="+f)
	}
	for _, id := range opts.SSH {
		add("--ssh", id)
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Contexts)) {
		v := opts.Contexts[k]
		if d, ok := strings.CutPrefix(v, "dir:"); ok {
			v = filepath.Join(p.files, d)
		} else {
			v = "docker-image://" + strings.TrimPrefix(v, "image:")
		}
		add("--build-context", k+"="+v)
	}
	if opts.SourceDateEpoch != nil {
		add("--build-arg", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", *opts.SourceDateEpoch))
	}
	if opts.RewriteTimestamp {
		args = append(args, "--rewrite-timestamp")
	}
	add("--hostname", opts.Hostname)
	for _, k := range slices.Sorted(maps.Keys(opts.AddHosts)) {
		add("--add-host", k+":"+opts.AddHosts[k])
	}
	if opts.ShmSize != 0 {
		add("--shm-size", fmt.Sprint(opts.ShmSize))
	}
	return args, nil
}

// readEvents decodes JSON lines: the text that a person would read, and the
// failure in the closing result. Other lines are taken as they are.
func readEvents(out string) (string, *request.Failure) {
	var text strings.Builder
	var failure *request.Failure
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			request.Event
			Result  *request.Result  `json:"result"`
			Failure *request.Failure `json:"failure"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			fmt.Fprintln(&text, lines.Text())
			continue
		}
		if line.Result != nil {
			line.Failure = line.Result.Failure
		}
		if line.Failure != nil {
			failure = line.Failure
			fmt.Fprintln(&text, failure.Message)
		}
		e := line.Event
		text.Write(e.Data)
		for _, s := range []string{e.Name, e.Text, e.Error} {
			if s != "" {
				fmt.Fprintln(&text, s)
			}
		}
	}
	return text.String(), failure
}

// run runs a builder's command to its end, or until ctx is done: then it is
// asked to stop, and killed with all its process group if it does not.
func run(cmd *exec.Cmd, c *testCase, p paths) (outcome, error) {
	if err := os.WriteFile(filepath.Join(p.dir, "config.json"), []byte("{}"), 0o600); err != nil {
		return outcome{}, err
	}
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	cmd.Env = append(os.Environ(), "TMPDIR="+p.tmp, "DOCKER_CONFIG="+p.dir,
		"XDG_CACHE_HOME="+filepath.Join(p.dir, "cache")) // every case starts without cache mounts
	if len(c.Opts.SSH) > 0 {
		socket := filepath.Join(p.dir, "agent")
		agent, err := net.Listen("unix", socket) // a build only looks whether it is there
		if err != nil {
			return outcome{}, err
		}
		defer agent.Close()
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	if as := cmd.SysProcAttr.Credential; as != nil {
		if err := give(p.dir, as); err != nil {
			return outcome{}, err
		}
	}
	hung := false
	cmd.Cancel = func() error {
		hung = true
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if hung {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !hung {
		return outcome{}, err
	}
	return outcome{exit: cmd.ProcessState.ExitCode(), hung: hung, log: buf.String()}, nil
}
