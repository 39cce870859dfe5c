package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// buildkit is a BuildKit daemon that buildctl reaches at addr. It is no oracle
// of the tests, which run without one: it records the answers that they have.
type buildkit struct{ addr string }

// takes are the cases whose answer is BuildKit's.
func (buildkit) takes(all []*testCase) []*testCase {
	return slices.DeleteFunc(all, func(c *testCase) bool { return c.Marks.BuildKit != "" })
}

func (buildkit) judge(c *testCase, out outcome, p paths, bases string) []string {
	if err := c.record(out, p, bases); err != nil {
		return []string{err.Error()}
	}
	return c.judgeLog(out.log)
}

func (b buildkit) build(ctx context.Context, c *testCase, p paths) (outcome, error) {
	args, err := b.args(c, p)
	if err != nil {
		return outcome{}, err
	}
	out, err := run(exec.CommandContext(ctx, "buildctl", args...), c, p)
	if err != nil || out.exit == 0 {
		return out, err
	}
	out.failure = readFailure(out.log)
	return out, nil
}

func (b buildkit) args(c *testCase, p paths) ([]string, error) {
	opts := c.Opts
	dockerfile := filepath.Join(p.files, opts.Dockerfile)
	args := []string{
		"--addr", b.addr, "build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0",
		"--local", "context=" + filepath.Join(p.files, "context"), "--local", "dockerfile=" + filepath.Dir(dockerfile),
		"--opt", "filename=" + filepath.Base(dockerfile),
	}
	opt := func(key, value string) {
		if value != "" {
			args = append(args, "--opt", key+"="+p.replace.Replace(value))
		}
	}
	opt("target", opts.Target)
	opt("platform", opts.Platform)
	opt("hostname", opts.Hostname)
	for _, k := range slices.Sorted(maps.Keys(opts.BuildArgs)) {
		args = append(args, "--opt", "build-arg:"+k+"="+p.replace.Replace(opts.BuildArgs[k]))
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Labels)) {
		args = append(args, "--opt", "label:"+k+"="+opts.Labels[k])
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Secrets)) {
		f := filepath.Join(p.dir, "secret-"+k)
		if err := os.WriteFile(f, []byte(opts.Secrets[k]), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--secret", "id="+k+",src="+f)
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Contexts)) {
		v := opts.Contexts[k]
		if dir, ok := strings.CutPrefix(v, "dir:"); ok {
			args = append(args, "--local", k+"="+filepath.Join(p.files, dir))
			v = "local:" + k
		} else {
			v = "docker-image://" + strings.TrimPrefix(v, "image:")
		}
		opt("context:"+p.replace.Replace(k), v)
	}
	output := "type=oci,tar=false,dest=" + p.layout
	if opts.SourceDateEpoch != nil {
		args = append(args, "--opt", fmt.Sprintf("build-arg:SOURCE_DATE_EPOCH=%d", *opts.SourceDateEpoch))
	}
	if opts.RewriteTimestamp {
		output += ",rewrite-timestamp=true"
	}
	return append(args, "--output", output), nil
}

var (
	marked   = regexp.MustCompile(`(?m)^ +(\d+) \| >>>`)
	exitCode = regexp.MustCompile(`exit code: (\d+)`)
	// what a message says of the machine that it was recorded on
	snapshots = regexp.MustCompile(`/\S*/snapshots/\d+`)
	reference = regexp.MustCompile(`of ref \S+: `)
)

// readFailure finds the message and the line in what buildctl printed.
func readFailure(log string) *request.Failure {
	f := &request.Failure{Message: log}
	if i := strings.LastIndex(log, "failed to solve: "); i >= 0 {
		f.Message = strings.TrimSpace(log[i+len("failed to solve: "):])
	}
	f.Message = reference.ReplaceAllString(snapshots.ReplaceAllString(f.Message, ""), "of ref: ")
	if m := marked.FindStringSubmatch(log); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
	}
	if m := exitCode.FindStringSubmatch(f.Message); m != nil {
		f.ExitCode, _ = strconv.Atoi(m[1])
	}
	return f
}

// record writes an outcome into the case as its golden answer. What a person
// has to say stays: class and fragments of a message, base, texts of the log.
func (c *testCase) record(out outcome, p paths, bases string) error {
	w := want{
		Base: cmp.Or(c.Want.Base, "language/base:1"), LogContains: c.Want.LogContains, LogExcludes: c.Want.LogExcludes,
	}
	if out.exit != 0 {
		w = want{Error: &wantError{Class: "?", Contains: []string{}}}
		if c.Want.Error != nil {
			w.Error = c.Want.Error
		}
		w.Error.Line, w.Error.Message = out.failure.Line, p.back.Replace(out.failure.Message)
		if code := out.failure.ExitCode; code != 0 && !w.Error.NoExitCode {
			w.ExitCode = &code
		}
		return c.rewrite(w)
	}
	if err := c.describe(&w, p, bases); err != nil {
		return err
	}
	return c.rewrite(w)
}

// rewrite replaces the case's want.json, which comes last.
func (c *testCase) rewrite(w want) error {
	b, err := os.ReadFile(c.Path)
	if err != nil {
		return err
	}
	head, _, _ := strings.Cut(string(b), "-- want.json --\n")
	text, err := w.encode()
	if err != nil {
		return err
	}
	return os.WriteFile(c.Path, []byte(strings.TrimRight(head, "\n")+"\n-- want.json --\n"+text), 0o644)
}

// encode is the answer as JSON with one line for each entry of a list.
func (w want) encode() (string, error) {
	var lines []string
	add := func(key string, v any) error {
		b, err := plainJSON(v)
		lines = append(lines, fmt.Sprintf("  %q: %s", key, b))
		return err
	}
	list := func(key string, n int, at func(i int) any) error {
		var entries []string
		for i := range n {
			b, err := plainJSON(at(i))
			if err != nil {
				return err
			}
			entries = append(entries, "    "+b)
		}
		text := "[]"
		if n > 0 {
			text = "[\n" + strings.Join(entries, ",\n") + "\n  ]"
		}
		lines = append(lines, fmt.Sprintf("  %q: %s", key, text))
		return nil
	}
	err := w.each(add, list)
	return "{\n" + strings.Join(lines, ",\n") + "\n}\n", err
}

// each calls add for each field that is set and list for those that are lists.
func (w want) each(add func(string, any) error, list func(string, int, func(int) any) error) error {
	if w.Error != nil {
		if err := add("error", w.Error); err != nil || w.ExitCode == nil {
			return err
		}
		return add("exit_code", *w.ExitCode)
	}
	for _, f := range []struct {
		key string
		v   string
	}{
		{"base", w.Base}, {"os", w.OS}, {"architecture", w.Architecture}, {"variant", w.Variant},
		{"author", w.Author}, {"created", w.Created},
	} {
		if f.v != "" {
			if err := add(f.key, f.v); err != nil {
				return err
			}
		}
	}
	if err := add("config", w.Config); err != nil {
		return err
	}
	if err := add("layers", w.Layers); err != nil {
		return err
	}
	for _, f := range []struct {
		key  string
		list []string
	}{{"log_contains", w.LogContains}, {"log_excludes", w.LogExcludes}} {
		if len(f.list) > 0 {
			if err := add(f.key, f.list); err != nil {
				return err
			}
		}
	}
	if err := list("history", len(w.History), func(i int) any { return w.History[i] }); err != nil {
		return err
	}
	if err := list("tree", len(w.Tree), func(i int) any { return w.Tree[i] }); err != nil {
		return err
	}
	return add("removed", append([]string{}, w.Removed...))
}

// plainJSON is JSON that leaves <, > and & as they are.
func plainJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}
